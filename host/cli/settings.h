/* settings.h - every option of every command, declared once.
 *
 * A row is one option: the C field, the recipe key, the flag, the default, the range and the line
 * of help all come from it. In a recipe the key stands in its section (train: {lr: 2e-4}), those
 * of section `run` at the top level; on the command line the flag carries the key's name alone
 * (--lr), or with its section where two sections share a name (--train.lr). The key `path` is the
 * section's own flag: `--model X` is model: {path: X}. A field max_length is the key max-length.
 *
 * X(section, TYPE, field, default, least, most, detail, mark, help)
 *   TYPE    INT int, REAL double, FLAG bool, TEXT const char * (never NULL, default ""),
 *           CHOICE int (index into detail, which lists "a|b|c"), LIST const char *, comma-joined
 *           (detail lists what an element may be, or is empty)
 *   detail  unit of a number ("auto|unit": the word auto may stand for 0), what a text is, or the
 *           choices
 *   mark    OURS: the method leaves it open and this default is our choice (named in manifests);
 *           DISPLAY: how results are shown, no part of the recipe that a run can be repeated from
 */
#ifndef SAILS_SETTINGS_H
#define SAILS_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "data/base/err.h"
#include "data/suites.h"
#include "data/tasks.h"
#include "host/cli/setting_choices.h"
#include "kernels/ops.h"
#include "model/adapter_start.h"
#include "model/pair_loss.h"
#include "model/presets.h"
#include "model/schedule.h"
#include "model/score.h"

enum SettingType { SET_INT, SET_REAL, SET_FLAG, SET_TEXT, SET_CHOICE, SET_LIST };
enum SettingMark { PLAIN, OURS, DISPLAY };

/* "; lora: A random ...": each way to start, for the help. */
#define START_ABOUT(value, name, about, ...) "; " name ": " about

/* clang-format off */
#define SETTINGS_RUN(X) \
    X(run, TEXT, out, "", 0, 0, "folder", PLAIN, "run folder: everything the run makes") \
    X(run, INT, seed, "0", 0, 2147483647, "", PLAIN, "of every random choice") \
    X(run, INT, threads, "auto", 0, 1024, "auto|threads", PLAIN, \
      "worker threads; auto: one per processor") \
    X(run, CHOICE, cpu, "auto", 0, 0, "auto" CPU_LEVELS(CHOICE_WORD), PLAIN, \
      "instructions that the CPU device may use; auto: the best that this processor has") \
    X(run, FLAG, check, "false", 0, 0, "", DISPLAY, \
      "read all inputs, of models and SAEs the headers, plan every stage, say what it takes, and stop") \
    X(run, REAL, deadline, "0", 0, 1000000, "seconds", DISPLAY, \
      "that ranks wait for one that shows no life; 0: by what they are doing") \
    X(run, FLAG, json, "false", 0, 0, "", DISPLAY, "results as JSON on stdout, one object a line")

#define SETTINGS_MODEL(X) \
    X(model, TEXT, path, "", 0, 0, "folder", PLAIN, "Gemma-2 model in Hugging Face form") \
    X(model, TEXT, adapter, "", 0, 0, "folder", PLAIN, "PEFT LoRA adapter put on the model") \
    X(model, TEXT, tokenizer, "", 0, 0, "path", PLAIN, \
      "tokenizer.json or its folder; the model's where there is one") \
    X(model, CHOICE, device, "auto", 0, 0, CHOICES(DEVICE_KINDS), PLAIN, \
      "where the numbers are made") \
    X(model, CHOICE, dtype, "auto", 0, 0, "auto" DTYPES(CHOICE_WORD), PLAIN, \
      "storage type; auto: bf16 where the device computes in it, else f32")

#define SETTINGS_DATA(X) \
    X(data, TEXT, path, "", 0, 0, "file", PLAIN, \
      "JSONL, JSON or CSV, plain or .gz: pairs, chats, prompts, texts or tokens") \
    X(data, INT, limit, "0", 0, 2147483647, "records", PLAIN, "read at most so many; 0: all") \
    X(data, CHOICE, side, "chosen", 0, 0, CHOICES(SIDES), PLAIN, \
      "which reply of a pair is the document") \
    X(data, INT, max_length, "1024", 2, 1048576, "tokens", OURS, \
      "longer documents are cut at the end and counted") \
    X(data, INT, pack_tokens, "auto", 0, 16777216, "auto|tokens", OURS, \
      "rows of one pack; auto: the larger of 2048 and max-length, twice that for dpo") \
    X(data, REAL, heldout, "0.05", 0, 0.5, "share", OURS, \
      "of the records, kept out of scoring and training for the perplexity") \
    X(data, TEXT, text, "", 0, 0, "file", PLAIN, \
      "measure the perplexity on this file and hold nothing out")

#define SETTINGS_SCORE(X) \
    X(score, TEXT, sae, "", 0, 0, "path", PLAIN, \
      "SAEs: a path with {layer} and shell wildcards, params.npz or SAELens folder") \
    X(score, LIST, layers, "", 0, 0, "", PLAIN, \
      "decoder layers that have an SAE, such as 5,10 or 5-8") \
    X(score, TEXT, aligned, "", 0, 0, "file", PLAIN, "aligned corpus, in place of chosen replies") \
    X(score, TEXT, unaligned, "", 0, 0, "file", PLAIN, \
      "unaligned corpus, in place of rejected replies") \
    X(score, CHOICE, tokens, "reply", 0, 0, CHOICES(COUNTED_TOKENS), OURS, \
      "which tokens count: the final reply, its last token, or all but BOS and markers") \
    X(score, CHOICE, pool, "token", 0, 0, CHOICES(SCORE_POOLS), OURS, \
      "means over all tokens, or over the documents' means") \
    X(score, CHOICE, products, "exact", 0, 0, CHOICES(SAE_PRODUCTS), PLAIN, \
      "of the SAEs' encoders; fast: in bf16, and what that switches is sampled and reported") \
    X(score, FLAG, resume, "false", 0, 0, "", DISPLAY, \
      "keep what is done in OUT.partial, at signals and every ten minutes, and go on from there") \
    X(score, TEXT, out, "", 0, 0, "file", PLAIN, "scores to write (safetensors)")

#define SETTINGS_MOMENTS(X) \
    X(moments, TEXT, out, "", 0, 0, "file", PLAIN, "moments to write (safetensors)")

#define SETTINGS_INPUTS(X) \
    X(inputs, TEXT, preserve, "", 0, 0, "file", PLAIN, \
      "for salora: harmful prompts with safe replies, whose outputs are to stay what they are") \
    X(inputs, INT, preserve_rank, "32", 1, 4096, "directions", PLAIN, \
      "salora: that each projection's outputs keep, and as many of the data's to start within") \
    X(inputs, INT, samples, "128", 0, 2147483647, "documents", PLAIN, \
      "salora: of either corpus that make them; 0: all") \
    X(inputs, TEXT, out, "", 0, 0, "file", PLAIN, "subspace to write (safetensors)")

#define SETTINGS_SUBSPACE(X) \
    X(subspace, TEXT, scores, "", 0, 0, "file", PLAIN, "scores written by sails score") \
    X(subspace, TEXT, moments, "", 0, 0, "file", PLAIN, \
      "moments written by sails moments, for the starts that are direct") \
    X(subspace, CHOICE, by, "delta", 0, 0, CHOICES(SCORE_KINDS), OURS, \
      "statistic that ranks the features") \
    X(subspace, INT, top_k, "20", 1, 65536, "features", OURS, "decoder directions per layer") \
    X(subspace, REAL, variance, "0.8", 0.000001, 1, "share", PLAIN, \
      "keep the fewest directions that explain so much") \
    X(subspace, FLAG, center, "false", 0, 0, "", OURS, "centre the directions before the PCA") \
    X(subspace, CHOICE, weight_rows, "none", 0, 0, CHOICES(ROW_WEIGHTS), OURS, \
      "what the unit directions are multiplied by before it; delta: the feature's |mean difference|") \
    X(subspace, TEXT, out, "", 0, 0, "file", PLAIN, "subspace to write (safetensors)")

#define SETTINGS_TRAIN(X) \
    X(train, LIST, methods, "base,lora,sails", 0, 0, "base|full|dpo" ADAPTER_STARTS(CHOICE_WORD), \
      PLAIN, \
      "rows of the table: each is trained, generates and is judged; full: all weights; dpo: lora on " \
      "pairs; else an adapter by its start") \
    X(train, CHOICE, method, "lora", 0, 0, CHOICES(TRAIN_METHODS), PLAIN, \
      "lora: an adapter on the targets of documents; full: all weights of the model on them; " \
      "dpo: an adapter, or all weights, on what pairs prefer") \
    X(train, CHOICE, weights, "adapter", 0, 0, CHOICES(TRAINED_WEIGHTS), PLAIN, \
      "dpo: what is trained, an adapter or all weights of the model") \
    X(train, CHOICE, loss_type, "sigmoid", 0, 0, CHOICES(PAIR_LOSSES), PLAIN, \
      "of a pair in dpo, as TRL names them") \
    X(train, REAL, beta, "0.1", 0.000001, 1000000, "", PLAIN, \
      "dpo: how dear it is to leave the reference") \
    X(train, REAL, label_smoothing, "0", 0, 0.4999, "share", PLAIN, \
      "of pairs that are the wrong way round, for robust and exo_pair") \
    X(train, CHOICE, init, "sails", 0, 0, CHOICES(ADAPTER_STARTS), PLAIN, \
      "start of the adapter" ADAPTER_STARTS(START_ABOUT)) \
    X(train, TEXT, init_adapter, "", 0, 0, "folder", PLAIN, "start from this PEFT LoRA instead") \
    X(train, TEXT, subspace, "", 0, 0, "file", PLAIN, \
      "subspace written by sails subspace, or by sails inputs for eva and salora") \
    X(train, INT, rank, "16", 0, 4096, "auto|columns", OURS, \
      "of the adapters and of the basis; auto: what the variance asks for, layer by layer") \
    X(train, REAL, alpha, "32", 0.0001, 1000000, "", OURS, \
      "adapter output is scaled by alpha/rank") \
    X(train, LIST, targets, "q,k,v,o", 0, 0, CHOICES(PROJECTIONS), PLAIN, \
      "projections that get an adapter") \
    X(train, FLAG, only_scored, "false", 0, 0, "", OURS, "adapt only the layers that have an SAE") \
    X(train, FLAG, freeze_basis, "false", 0, 0, "", OURS, \
      "train only the factor that starts at zero") \
    X(train, CHOICE, gain, "none", 0, 0, CHOICES(START_GAINS), OURS, \
      "correct the basis for the gains of the norms around each sub-layer") \
    X(train, REAL, basis_scale, "1", 0.000001, 1000000, "", OURS, "multiplies the basis") \
    X(train, REAL, rho, "1", 1, 1000, "", OURS, \
      "eva: ranks go where inputs vary in many directions, up to rho*rank, their sum kept; PEFT: 2") \
    X(train, INT, batch, "64", 1, 1048576, "documents", OURS, "of one step") \
    X(train, REAL, epochs, "1", 0, 1000000, "passes", OURS, "over the data") \
    X(train, INT, steps, "0", 0, 2147483647, "steps", PLAIN, "in place of epochs when not 0") \
    X(train, REAL, lr, "2e-4", 0, 100, "", OURS, \
      "peak learning rate; where none is given, 2e-5 for full, 1e-5 for dpo and 1e-6 for all " \
      "weights in dpo") \
    X(train, REAL, warmup, "0.03", 0, 1, "share", OURS, "of the steps, with a rising rate") \
    X(train, CHOICE, schedule, "cosine", 0, 0, CHOICES(SCHEDULES), OURS, \
      "learning rate after the warm-up") \
    X(train, REAL, clip, "1.0", 0, 1000000, "", OURS, "largest gradient norm; 0: no clipping") \
    X(train, REAL, beta1, "0.9", 0, 0.999999, "", OURS, "AdamW, mean of gradients") \
    X(train, REAL, beta2, "0.999", 0, 0.9999999, "", OURS, "AdamW, mean of squares") \
    X(train, REAL, eps, "1e-8", 1e-30, 1, "", OURS, "AdamW, added to the root") \
    X(train, REAL, weight_decay, "0", 0, 10, "", OURS, "AdamW, decoupled") \
    X(train, REAL, redundancy, "0", 0, 1000, "", OURS, \
      "weight of a penalty on adapter columns that repeat each other, after ReSoRA's idea; 0: none") \
    X(train, TEXT, eval_data, "", 0, 0, "file", PLAIN, "measure the loss on this file too") \
    X(train, INT, eval_every, "0", 0, 2147483647, "steps", PLAIN, \
      "between two such measurements; 0: only after the last step") \
    X(train, INT, checkpoint_every, "0", 0, 2147483647, "steps", PLAIN, \
      "save the state in OUT/checkpoints every so many; 0: not by steps") \
    X(train, REAL, checkpoint_minutes, "0", 0, 1000000, "minutes", PLAIN, \
      "save it when so much time has passed; 0: not by time") \
    X(train, INT, keep, "2", 1, 1000000, "checkpoints", OURS, "that stay: the newest") \
    X(train, LIST, rates, "", 0, 0, "", PLAIN, \
      "learning rates, in place of lr: each is tried, the best on validation prompts is taken") \
    X(train, INT, seeds, "1", 1, 1000, "seeds", PLAIN, \
      "that each row is trained from, the first being `seed`: means, intervals, paired tests") \
    X(train, REAL, validation, "0.25", 0.01, 0.9, "share", OURS, \
      "of the prompts, put aside where a rate is to be chosen; the table is of the others") \
    X(train, FLAG, recompute, "false", 0, 0, "", DISPLAY, \
      "keep of each layer its input alone and make the rest again in backward: less memory, a third" \
      " more work, the same bytes") \
    X(train, FLAG, tensorboard, "true", 0, 0, "", DISPLAY, \
      "write metrics.jsonl's numbers as events for TensorBoard beside it, too") \
    X(train, FLAG, resume, "false", 0, 0, "", DISPLAY, \
      "go on from the newest checkpoint in OUT/checkpoints, if there is one") \
    X(train, TEXT, out, "", 0, 0, "folder", PLAIN, \
      "adapter to write (PEFT), or model (Hugging Face)")

#define SETTINGS_GENERATE(X) \
    X(generate, TEXT, prompts, "", 0, 0, "file", PLAIN, "prompts to answer, any record form") \
    X(generate, CHOICE, suite, "none", 0, 0, "none" SUITES(CHOICE_WORD), PLAIN, \
      "the prompts are this suite's, in the file or folder that its authors give out") \
    X(generate, TEXT, benign, "", 0, 0, "file", PLAIN, \
      "harmless prompts too: a refusal there is an over-refusal") \
    X(generate, CHOICE, benign_suite, "none", 0, 0, "none" SUITES(CHOICE_WORD), PLAIN, \
      "those are this suite's; of one that has both kinds, as xstest, its safe ones") \
    X(generate, INT, limit, "0", 0, 2147483647, "prompts", PLAIN, "per file, at most; 0: all") \
    X(generate, INT, max_new_tokens, "256", 1, 1048576, "tokens", PLAIN, "of one response") \
    X(generate, INT, batch, "16", 1, 4096, "prompts", PLAIN, "decoded together") \
    X(generate, REAL, temperature, "0", 0, 100, "", PLAIN, "0: greedy") \
    X(generate, INT, top_k, "0", 0, 1048576, "tokens", PLAIN, "sample from so many; 0: all") \
    X(generate, REAL, top_p, "1", 0.000001, 1, "share", PLAIN, \
      "sample from this much probability") \
    X(generate, FLAG, resume, "false", 0, 0, "", DISPLAY, \
      "keep every finished response in OUT.partial, and go on from there") \
    X(generate, TEXT, out, "", 0, 0, "file", PLAIN, "responses to write (JSONL); empty: stdout")

#define SETTINGS_EVAL(X) \
    X(eval, TEXT, responses, "", 0, 0, "file", PLAIN, "responses written by sails generate") \
    X(eval, LIST, judge, "refusal", 0, 0, CHOICES(JUDGES), PLAIN, \
      "deterministic rules, a model behind HTTP, or scores 1..5 read from a file; of two the first " \
      "makes the rates, and how far the other agrees is said") \
    X(eval, TEXT, judgements, "", 0, 0, "file", PLAIN, \
      "for judge file: JSONL {\"id\",\"score\"}, ids as in the responses; or a batch's output") \
    X(eval, TEXT, judge_url, "", 0, 0, "address", PLAIN, \
      "of a server that speaks OpenAI's chat completions, such as https://api.openai.com/v1") \
    X(eval, TEXT, judge_model, "", 0, 0, "name", PLAIN, "of the judging model, as the server has it") \
    X(eval, TEXT, judge_key_env, "OPENAI_API_KEY", 0, 0, "variable", PLAIN, \
      "of the environment that holds the server's key; it is written nowhere") \
    X(eval, FLAG, judge_plain_http, "false", 0, 0, "", PLAIN, \
      "send the key to another machine without TLS") \
    X(eval, TEXT, judge_ca, "", 0, 0, "path", PLAIN, \
      "certificates to trust, a file or folder; else SSL_CERT_FILE, SSL_CERT_DIR, the system's") \
    X(eval, CHOICE, judge_dialect, "auto", 0, 0, "auto" JUDGE_DIALECTS(CHOICE_WORD), PLAIN, \
      "of the server; auto: the first that answers a trial request") \
    X(eval, INT, judge_max_tokens, "1024", 16, 1048576, "tokens", OURS, \
      "of one verdict; models that think need more") \
    X(eval, INT, judge_concurrency, "8", 1, 1024, "requests", PLAIN, "at a time") \
    X(eval, REAL, judge_timeout, "120", 0.01, 86400, "seconds", PLAIN, "for one answer") \
    X(eval, INT, judge_tries, "6", 1, 100, "requests", PLAIN, \
      "for one response, where the server is busy or broken") \
    X(eval, REAL, judge_price_in, "0", 0, 1000000, "USD", PLAIN, "for a million tokens asked") \
    X(eval, REAL, judge_price_out, "0", 0, 1000000, "USD", PLAIN, "for a million tokens answered") \
    X(eval, REAL, judge_budget, "0", 0, 1000000000, "USD", PLAIN, \
      "no request begins when so much is spent; 0: no limit") \
    X(eval, TEXT, judge_cache, "", 0, 0, "path", PLAIN, \
      "JSONL of all verdicts so far, read and added to; else beside what is written") \
    X(eval, TEXT, judge_export, "", 0, 0, "file", PLAIN, \
      "write the requests as a batch (JSONL) in place of judging; its output is for judge file") \
    X(eval, LIST, benign_categories, "", 0, 0, "", PLAIN, \
      "categories (up to the first '/') beside \"benign\" whose prompts should be answered") \
    X(eval, CHOICE, suite, "none", 0, 0, "none" SUITES(CHOICE_WORD), PLAIN, \
      "what the responses answer; its file says their categories and what was expected") \
    X(eval, TEXT, prompts, "", 0, 0, "path", PLAIN, \
      "file or folder of the suite") \
    X(eval, TEXT, versus, "", 0, 0, "file", PLAIN, \
      "judgement of other responses to the same prompts: McNemar's test against them") \
    X(eval, LIST, labels, "label,final_label", 0, 0, "", PLAIN, \
      "keys of the responses with people's labels (refused, partial, complied; XSTest's 1 to 3)") \
    X(eval, TEXT, out, "", 0, 0, "file", PLAIN, "judgement to write (JSON)")

#define SETTINGS_EXPLAIN(X) \
    X(explain, LIST, parts, "features,energy,causal", 0, 0, "features|energy|causal", PLAIN, \
      "cards of the features; how much of the adapters lies in the subspace; what the model does " \
      "without it") \
    X(explain, INT, documents, "200", 1, 2147483647, "documents", OURS, \
      "of each corpus that are looked at, at equal distances") \
    X(explain, INT, window, "12", 0, 512, "tokens", PLAIN, "shown either side of the one that fires") \
    X(explain, TEXT, labels, "", 0, 0, "path", PLAIN, \
      "what features are said to be: JSON or JSONL, index to text; {layer} may stand in the path") \
    X(explain, LIST, refusals, "I,Sorry", 0, 0, "", OURS, \
      "how refusals begin: their first tokens are what the refusal score is of") \
    X(explain, INT, draws, "3", 1, 1000, "draws", OURS, \
      "of random subspaces and directions beside the real ones") \
    X(explain, TEXT, out, "", 0, 0, "folder", PLAIN, "JSON to write")

#define SETTINGS_REPORT(X) \
    X(report, TEXT, title, "", 0, 0, "", DISPLAY, "of the page") \
    X(report, INT, prompts, "2000", 0, 2147483647, "prompts", DISPLAY, \
      "of each run, whose responses are in the page; 0: all") \
    X(report, TEXT, out, "", 0, 0, "file", PLAIN, "HTML to write; empty: report.html in the run's folder")

#define SETTINGS_CAPABILITY(X) \
    X(capability, CHOICE, task, "mmlu", 0, 0, CHOICES(TASKS), PLAIN, "whose questions they are") \
    X(capability, TEXT, questions, "", 0, 0, "path", PLAIN, \
      "the task's file, or folder of mmlu, that its authors give out") \
    X(capability, INT, shots, "0", 0, 100, "examples", PLAIN, \
      "of mmlu, in front of each question: the first of dev") \
    X(capability, INT, limit, "0", 0, 2147483647, "questions", PLAIN, "per file, at most; 0: all") \
    X(capability, TEXT, versus, "", 0, 0, "file", PLAIN, \
      "result of another model on the same questions: McNemar's test against it") \
    X(capability, TEXT, out, "", 0, 0, "file", PLAIN, "result to write (JSON)")

#define SETTINGS_TOKENIZE(X) \
    X(tokenize, TEXT, out, "", 0, 0, "file", PLAIN, "JSONL to write; empty: stdout")

#define SETTINGS_LOGPROB(X) \
    X(logprob, TEXT, out, "", 0, 0, "file", PLAIN, "JSONL to write; empty: stdout")

#define SETTINGS_MERGE(X) \
    X(merge, TEXT, out, "", 0, 0, "folder", PLAIN, "merged model to write")

#define SETTINGS_PLAN(X) \
    X(plan, CHOICE, stage, "train", 0, 0, CHOICES(PLAN_STAGES), PLAIN, \
      "what is going to run") \
    X(plan, INT, ranks, "1", 1, 65536, "ranks", DISPLAY, \
      "that will share it; the memory is that of rank 0, which has the most") \
    X(plan, REAL, gpu_memory, "0", 0, 100000, "GB", DISPLAY, \
      "plan for a GPU with so much, which need not be here; 0: for --device") \
    X(plan, CHOICE, shape, "none", 0, 0, "none" PRESETS(CHOICE_WORD), PLAIN, \
      "of the model, where there is no --model") \
    X(plan, INT, length, "160", 2, 1048576, "tokens", OURS, \
      "of a document, where there is no --data")

#define SETTINGS_INIT(X) \
    X(init, TEXT, config, "", 0, 0, "path", PLAIN, "config.json (or its folder) to start from") \
    X(init, CHOICE, preset, "2b", 0, 0, CHOICES(PRESETS), PLAIN, \
      "shape to start from without a config") \
    X(init, INT, layers, "0", 0, 1024, "", PLAIN, \
      "decoder layers; 0 here and below: as the start") \
    X(init, INT, hidden, "0", 0, 65536, "", PLAIN, "model width") \
    X(init, INT, ffn, "0", 0, 1048576, "", PLAIN, "feed-forward width") \
    X(init, INT, heads, "0", 0, 1024, "", PLAIN, "query heads") \
    X(init, INT, kv_heads, "0", 0, 1024, "", PLAIN, "key/value heads") \
    X(init, INT, head_dim, "0", 0, 256, "", PLAIN, "head width") \
    X(init, INT, vocab, "0", 0, 4194304, "", PLAIN, "vocabulary") \
    X(init, INT, window, "0", 0, 1048576, "tokens", PLAIN, "sliding window") \
    X(init, INT, positions, "0", 0, 1048576, "tokens", PLAIN, "longest text") \
    X(init, REAL, std, "0.02", 0, 10, "", PLAIN, "of the normal weights") \
    X(init, REAL, norm_std, "0.05", 0, 10, "", PLAIN, "of the norms' offsets") \
    X(init, CHOICE, dtype, "bf16", 0, 0, CHOICES(DTYPES), PLAIN, "of the file") \
    X(init, REAL, shard, "5", 0.00001, 1000, "GB", PLAIN, "largest file") \
    X(init, FLAG, sparse, "false", 0, 0, "", PLAIN, \
      "zeros that take no room on the disk, for plans and checks of a model that is not here") \
    X(init, TEXT, out, "", 0, 0, "folder", PLAIN, "model to write")

#define SETTINGS_THEORY(X) \
    X(theory, CHOICE, study, "all", 0, 0, CHOICES(THEORY_STUDIES), PLAIN, "what is varied") \
    X(theory, INT, width, "128", 2, 1024, "", OURS, "of the vectors") \
    X(theory, INT, features, "512", 2, 16384, "", OURS, "that documents are made of") \
    X(theory, INT, rank, "8", 1, 1024, "features", OURS, "of the task") \
    X(theory, REAL, rate, "0.05", 0.0001, 0.9999, "share", OURS, \
      "of documents in which a feature fires") \
    X(theory, REAL, delta, "0.15", 0.0001, 1, "share", OURS, \
      "more of them in the aligned corpus, for the task's features") \
    X(theory, REAL, sigma, "0.05", 0, 1000, "", OURS, "noise of each coordinate") \
    X(theory, REAL, eps, "0.05", 0, 1000, "", OURS, \
      "error of the dictionary's rows, the tangent of their angles") \
    X(theory, REAL, coherence, "0", 0, 0.99, "", OURS, \
      "cosine between any two of the task's directions") \
    X(theory, INT, loud, "16", 0, 16384, "features", OURS, \
      "of the others, louder in the studies of pairs and of contrasts") \
    X(theory, REAL, loudness, "3", 1, 1000, "times", OURS, "as loud") \
    X(theory, INT, documents, "8000", 2, 100000000, "documents", OURS, \
      "of each corpus; where they vary, the most") \
    X(theory, INT, contrast_documents, "200000", 2, 100000000, "documents", OURS, \
      "of each corpus in the study of contrasts") \
    X(theory, INT, repeats, "8", 1, 100000, "draws", OURS, "of everything that is random") \
    X(theory, TEXT, out, "", 0, 0, "folder", PLAIN, \
      "CSV and SVG of each study; empty: the tables on stdout alone")

#define SETTINGS_DOCTOR(X) \
    X(doctor, TEXT, dumps, "", 0, 0, "file", PLAIN, \
      "what the ranks of a job were doing when it was ended: the file that its line names")

#define SETTINGS_BENCH(X) \
    X(bench, FLAG, ops, "false", 0, 0, "", PLAIN, "time every op at the shapes of a model") \
    X(bench, FLAG, once, "false", 0, 0, "", PLAIN, \
      "with --ops: one call of each that is not timed, one that is, for profilers") \
    X(bench, FLAG, step, "false", 0, 0, "", PLAIN, "time training steps: --model and --data") \
    X(bench, FLAG, score, "false", 0, 0, "", PLAIN, \
      "time scoring passes: --model, --data with pairs, --sae and --layers") \
    X(bench, FLAG, derive, "false", 0, 0, "", PLAIN, \
      "work out the training step of --shape on an H100; nothing is measured") \
    X(bench, FLAG, cluster, "false", 0, 0, "", PLAIN, \
      "with --derive: the step on 1 to 64 such GPUs instead") \
    X(bench, CHOICE, shape, "2b", 0, 0, CHOICES(PRESETS), PLAIN, \
      "of ops and of the derived step, where there is no --model") \
    X(bench, TEXT, filter, "", 0, 0, "text", PLAIN, "only the ops whose names hold it") \
    X(bench, INT, rows, "1024", 16, 1048576, "tokens", PLAIN, \
      "of a pack, for ops and the derived step") \
    X(bench, INT, length, "160", 2, 1048576, "tokens", PLAIN, \
      "of a document of the derived step; as many as fill --rows") \
    X(bench, REAL, labels, "1", 0, 1, "share", PLAIN, \
      "of a document's tokens that are targets in the derived step") \
    X(bench, REAL, seconds, "0.5", 0, 3600, "seconds", PLAIN, "that each op is timed at least") \
    X(bench, INT, runs, "3", 1, 1000, "", PLAIN, "timed steps or passes, after one to warm up") \
    X(bench, FLAG, csv, "false", 0, 0, "", DISPLAY, "the table as CSV")

#define SETTINGS_ALL(X) \
    SETTINGS_RUN(X) SETTINGS_MODEL(X) SETTINGS_DATA(X) SETTINGS_SCORE(X) SETTINGS_MOMENTS(X) \
    SETTINGS_INPUTS(X) SETTINGS_SUBSPACE(X) SETTINGS_TRAIN(X) SETTINGS_GENERATE(X) SETTINGS_EVAL(X) \
    SETTINGS_EXPLAIN(X) SETTINGS_REPORT(X) SETTINGS_TOKENIZE(X) \
    SETTINGS_LOGPROB(X) SETTINGS_CAPABILITY(X) SETTINGS_MERGE(X) SETTINGS_PLAN(X) SETTINGS_INIT(X) \
    SETTINGS_THEORY(X) SETTINGS_DOCTOR(X) SETTINGS_BENCH(X)

#define SETTING_C_INT int
#define SETTING_C_REAL double
#define SETTING_C_FLAG bool
#define SETTING_C_TEXT const char *
#define SETTING_C_CHOICE int
#define SETTING_C_LIST const char *
#define SETTING_FIELD(section, TYPE, field, ...) SETTING_C_##TYPE field;

typedef struct Settings {
    struct { SETTINGS_RUN(SETTING_FIELD) } run;
    struct { SETTINGS_MODEL(SETTING_FIELD) } model;
    struct { SETTINGS_DATA(SETTING_FIELD) } data;
    struct { SETTINGS_SCORE(SETTING_FIELD) } score;
    struct { SETTINGS_MOMENTS(SETTING_FIELD) } moments;
    struct { SETTINGS_INPUTS(SETTING_FIELD) } inputs;
    struct { SETTINGS_SUBSPACE(SETTING_FIELD) } subspace;
    struct { SETTINGS_TRAIN(SETTING_FIELD) } train;
    struct { SETTINGS_GENERATE(SETTING_FIELD) } generate;
    struct { SETTINGS_EVAL(SETTING_FIELD) } eval;
    struct { SETTINGS_EXPLAIN(SETTING_FIELD) } explain;
    struct { SETTINGS_REPORT(SETTING_FIELD) } report;
    struct { SETTINGS_TOKENIZE(SETTING_FIELD) } tokenize;
    struct { SETTINGS_LOGPROB(SETTING_FIELD) } logprob;
    struct { SETTINGS_CAPABILITY(SETTING_FIELD) } capability;
    struct { SETTINGS_MERGE(SETTING_FIELD) } merge;
    struct { SETTINGS_PLAN(SETTING_FIELD) } plan;
    struct { SETTINGS_INIT(SETTING_FIELD) } init;
    struct { SETTINGS_THEORY(SETTING_FIELD) } theory;
    struct { SETTINGS_DOCTOR(SETTING_FIELD) } doctor;
    struct { SETTINGS_BENCH(SETTING_FIELD) } bench;
} Settings;

#define SETTING_ONE(...) +1
enum { SETTINGS_COUNT = 0 SETTINGS_ALL(SETTING_ONE) };
/* clang-format on */

/* One row of the list above. */
typedef struct Setting {
    const char *section, *field;
    enum SettingType type;
    size_t offset; /* in Settings */
    const char *fallback;
    double least, most;
    const char *detail;
    enum SettingMark mark;
    const char *help;
} Setting;

extern const Setting settings_table[SETTINGS_COUNT];

/* The dotted key ("train.weight-decay", "out"), the key within its section, and the flag without
 * its dashes ("lr", "model"). */
enum { SETTING_KEY = 64 };
void setting_key(const Setting *s, char key[SETTING_KEY]);
void setting_name(const Setting *s, char name[SETTING_KEY]);
void setting_flag(const Setting *s, char flag[SETTING_KEY]);
bool setting_top_level(const Setting *s);

const Setting *setting_find(const char *key); /* "train.rank", "seed"; it must be there */

/* What a setting does with the file or folder that it names: `out` and a batch are written. */
enum SettingRole { ROLE_NONE, ROLE_INPUT, ROLE_OUTPUT };
enum SettingRole setting_role(const Setting *s);

/* Of a number: its unit ("" where it has none), and whether "auto" may stand for 0. */
const char *setting_unit(const Setting *s);
bool setting_may_be_auto(const Setting *s);

/* Number of the choice named text[0..n) in "a|b|c"; -1: none of them. */
int setting_choice(const char *choices, const char *text, size_t n);

/* The name of choice i into `name`. */
void setting_choice_name(const char *choices, int i, char name[SETTING_KEY]);

/* Value as text, as a recipe would hold it; `text` needs SETTING_KEY bytes for numbers and
 * choices. Returns `text`, or the value's own text. */
const char *setting_text(const Setting *s, const Settings *v, char text[SETTING_KEY]);

/* Are all weights trained, and not an adapter? */
bool settings_all_weights(const Settings *s);

/* data.pack-tokens with its default filled in, and whether it can hold the longest document; the
 * same for training, where it may be a pair of them. */
int settings_pack_tokens(const Settings *s);
int settings_training_pack(const Settings *s);
bool settings_check_packs(const Settings *s, Err *err);
bool settings_check_training_pack(const Settings *s, Err *err);

/* Elements of a LIST value: their number, and element i into `item` (false: too long). */
int list_count(const char *list);
bool list_item(const char *list, int i, char *item, size_t room);

#endif
