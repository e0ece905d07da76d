# hours.awk - GPU-hours from what `sails align --check --json` prints, a stage a line, and from the
# training step on paper (`sails bench --derive`): derived, no card has been measured.
#
#   rate, pack  tokens/s of a LoRA step on one GPU, and tokens of one of its packs
#   gpus, price of an hour of one; parameters, layers and width of the model, kv: bytes of a token's
#   keys and values; saes of so many features, top: the highest layer that has one; batch of replies, longest: tokens
#   that each attends to, about; words: tokens of a reply at most
#
# A pass forward is half of a LoRA step, whose backward has no gradient of weights.
#   lora ..     tokens / rate, over the share of the GPUs' time that is used
#   dpo         and the reference's pass
#   full        one more pass, for the weights' gradients; of several GPUs a round of packs takes at
#               least its moves: weights gathered twice in bf16, gradients exchanged in f32, 370 GB/s
#   score ..    a pass up to the highest scored layer, and each SAE's encoder in f32 at 40 TFLOP/s
#   inputs      two passes: products with itself of what each projection reads
#   generate    a decoding step reads weights, keys and values once, at 0.87 of 3.35 TB/s, and starts
#               16 kernels a layer, 1.5 us each; a pass over the prompts
#   perplexity  a pass
function number(key) {
    return match($0, "\"" key "\":[-0-9.e+]+") ? \
        substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : 0
}
function word(key) {
    return match($0, "\"" key "\":\"[^\"]*\"") ? \
        substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5) : ""
}
{
    stage = word("stage"); row = word("row")
    if (stage == "disk") next
    tokens = number("tokens"); used = number("used"); made = number("made")
    pass = tokens / (2 * rate)
    seconds = pass
    if (stage == "train") {
        seconds = 2 * pass
        if (row == "dpo") seconds += pass
        if (row == "full") {
            seconds += pass
            moves = tokens / pack * 8 * parameters * (gpus - 1) / gpus / 370e9
            if (moves > seconds) seconds = moves
        }
        seconds /= used > 0 ? used : 1
    }
    if (stage == "score" || stage == "moments") seconds = pass * (top + 1) / layers
    if (stage == "score") seconds += tokens * saes * 2 * width * features / 40e12
    if (stage == "inputs" || stage == "outputs") seconds = 2 * pass
    if (stage == "generate") {
        replies += made / words
        seconds += made / batch * ((2 * parameters + batch * longest * kv) / (0.87 * 3.35e12) + \
            16 * layers * 1.5e-6)
    }
    hours = seconds / 3600
    all += hours
    printf "%-24s %9.2f GPU-hours\n", stage (row != "" ? " " row : ""), hours
}
END {
    printf "%-24s %9.2f GPU-hours, %.1f hours on %d GPU%s, %.0f at %s an hour of one\n", \
        "in all, derived", all, all / gpus, gpus, (gpus > 1 ? "s" : ""), all * price, price
    printf "%-24s %9d, which is what a model behind HTTP would be asked\n", "replies to judge", replies
}
