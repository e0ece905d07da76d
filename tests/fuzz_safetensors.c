/* Fuzzing of the safetensors reader: any bytes as a file, or, so that the fuzzer need not guess the
 * length in front, as a header and its data. What is accepted must keep the reader's promises, and
 * is then read as scores, as moments and as a subspace, the files whose numbers sails trusts. */
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "model/score.h"
#include "model/stream.h"
#include "model/subspace.h"
#include "tests/fuzz.h"

static FuzzFile file;
static Exec ex;

static void write_file(const uint8_t *data, size_t size) {
    if (!file.path[0]) fuzz_file_open(&file, "safetensors");
    if (size == 0 || data[0] != '{') {
        fuzz_file_set(&file, NULL, 0, data, size);
        return;
    }
    const uint8_t *end = memchr(data, 0, size); /* a NUL ends the header */
    uint64_t length = end ? (uint64_t)(end - data) : size;
    size_t from = length + (end != NULL);
    uint8_t *head = mem_array(8 + length, 1);
    memcpy(head, &length, 8);
    memcpy(head + 8, data, length);
    fuzz_file_set(&file, head, 8 + length, data + from, size - from);
    free(head);
}

static void check_tensor(const StSet *set, const StTensor *t) {
    size_t count = 1;
    const StTensor *same;
    Err err;
    float piece[64];
    CHECK(st_find(set, t->name) == t && t->rank >= 0 && t->rank <= ST_MAX_RANK, "%s", t->name);
    for (int i = 0; i < t->rank; i++) count *= t->dim[i];
    CHECK(t->count == count && t->bytes == count * st_type_size(t->type), "%s: size", t->name);
    if (st_need(set, &same, t->name, t->rank, t->dim, &err)) {
        for (size_t i = 0; i < t->count; i += 64)
            st_read_f32(t, piece, i, t->count - i < 64 ? t->count - i : 64);
    }
    volatile unsigned char byte; /* all of it must be mapped */
    for (size_t i = 0; i < t->bytes; i++) byte = ((const unsigned char *)t->data)[i];
    (void)byte;
}

static void check_scores(void) {
    Scores s;
    Err err;
    FeatureStat top[4];
    if (!ex.device) CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    if (!scores_load(&s, file.path, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return;
    }
    for (int i = 0; i < s.n; i++) {
        int n = score_top(&ex, top, &s, i, SCORE_T, 4, 1, 3);
        for (int j = 0; j < n; j++)
            CHECK(top[j].feature >= 0 && top[j].feature < s.layer[i].S, "%d", top[j].feature);
    }
    scores_free(&s);
}

static void check_moments(void) {
    StreamMoments s;
    Err err;
    if (!stream_load(&s, file.path, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return;
    }
    CHECK(s.n > 0 && s.D > 0 && s.documents[0] >= 2 && s.documents[1] >= 2, "%d layers", s.n);
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < 2 * s.D; k++) CHECK(s.layer[i].sum[k] - s.layer[i].sum[k] == 0, "sum");
    stream_free(&s);
}

static void check_subspace(void) {
    Subspace s;
    Err err;
    if (!subspace_load(&s, file.path, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return;
    }
    for (int i = 0; i < s.n; i++) {
        const Basis *b = &s.basis[i];
        CHECK(b->R >= 1 && b->R <= b->D, "%d columns of %d", b->R, b->D);
        CHECK(b->m >= (b->k > 0) && b->m <= (b->k > 0 ? b->k : b->R), "%d of %d", b->m, b->k);
        CHECK(i == 0 || (b->of && b->layer >= b[-1].layer) ||
                  (!b->of && b->layer > b[-1].layer && b->D == b[-1].D),
              "layer %d", b->layer);
    }
    subspace_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    write_file(data, size);
    StSet *set;
    Err err;
    if (!st_open(&set, file.path, &err)) {
        CHECK(!set, "a refused set");
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return 0;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < st_count(set); i++) {
        check_tensor(set, st_at(set, i));
        CHECK(i == 0 || strcmp(st_at(set, i - 1)->name, st_at(set, i)->name) < 0, "order");
        bytes += st_at(set, i)->bytes;
    }
    CHECK(bytes <= size, "%zu bytes of tensors in %zu", bytes, size);
    bool described = st_metadata(set, "format") != NULL;
    st_close(set);
    if (described) {
        check_scores();
        check_moments();
        check_subspace();
    }
    return 0;
}
