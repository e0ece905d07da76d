/* dump_logits - the capped logits of one document, for comparison by the scripts in tools/.
 *
 *   dump_logits MODEL TOKENS.safetensors OUT.safetensors f32|bf16 [ADAPTER [COPY]]
 *
 * TOKENS holds "tokens" (n) I32; OUT gets "logits" (n,V) F32. The adapter is saved again as COPY.
 * With SAILS_TEST_DEVICE=cuda the plug-in's device computes.
 */
#include <stdlib.h>
#include <string.h>

#include "data/base/mem.h"
#include "model/gemma2.h"

#define MUST(call, err) CHECK(call, "%s", (err).text)

static void write_logits(const char *path, const float *z, int n, int V) {
    StWriter *w;
    Err err;
    size_t dim[2] = {(size_t)n, (size_t)V};
    MUST(st_writer_open(&w, path, &err), err);
    st_writer_tensor(w, "logits", ST_F32, 2, dim);
    MUST(st_writer_data(w, z, dim[0] * dim[1] * sizeof *z, &err), err);
    MUST(st_writer_finish(w, &err), err);
}

int main(int argc, char **argv) {
    CHECK(argc >= 5, "expected MODEL TOKENS OUT f32|bf16 [ADAPTER [COPY]]");
    Exec ex;
    Model m;
    Lora l = {.ex = NULL};
    StSet *in;
    Err err;
    enum Dtype dtype = strcmp(argv[4], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    const char *device = getenv("SAILS_TEST_DEVICE");
    bool cuda = device && strcmp(device, "cuda") == 0;
    const char *why = exec_open(&ex, cuda ? DEVICE_CUDA : DEVICE_CPU, dtype);
    CHECK(!why, "%s", why);
    MUST(model_open(&m, &ex, argv[1], 0, &err), err);
    if (argc > 5) {
        MUST(lora_load(&l, &ex, &m.c, argv[5], false, &err), err);
        m.lora = &l;
    }
    if (argc > 6) MUST(lora_save(&l, argv[6], argv[1], &err), err);

    MUST(st_open(&in, argv[2], &err), err);
    const StTensor *t = st_find(in, "tokens");
    CHECK(t && t->type == ST_I32, "expected tokens, I32");
    int n = (int)t->count;
    int32_t *token = mem_array(t->count, sizeof *token), *row = mem_array(t->count, sizeof *row);
    memcpy(token, t->data, t->bytes);
    for (int i = 0; i < n; i++) row[i] = i;
    Pack p;
    pack_init(&p, n, 1, 0);
    pack_add(&p, token, NULL, n, 0);
    Acts *a = acts_create(&m, n, 1, n, ACTS_INFER);
    float *z = mem_array((size_t)n * (size_t)m.c.V, sizeof *z);
    model_forward(&m, a, &p, m.c.L, NULL, NULL);
    model_logits(&m, a, row, n, z);
    write_logits(argv[3], z, n, m.c.V);

    free(z), free(row), free(token);
    acts_destroy(a);
    pack_free(&p);
    st_close(in);
    lora_free(&l);
    model_close(&m);
    exec_close(&ex);
    return 0;
}
