/* lora_file.c - PEFT adapter folders. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/base/files.h"
#include "host/base/mem.h"
#include "host/base/safetensors.h"
#include "model/peft.h"

enum { TENSOR_NAME = 160 };

static void tensor_name(char name[TENSOR_NAME], int i, char which) {
    snprintf(name, TENSOR_NAME, "base_model.model.model.layers.%d.%s.lora_%c.weight",
             i / PROJ_COUNT, proj_path[i % PROJ_COUNT], which);
}

/* --------------------------------------------------------------------------------- load -- */

/* Checks that the file holds exactly the tensors that the configuration speaks of. */
static bool check_tensors(const StSet *file, const LoraShape *s, const Config *c, Err *err) {
    size_t expected = 0;
    for (int i = 0; i < c->L * PROJ_COUNT; i++) {
        if (s->rank[i] == 0) continue;
        enum Proj p = (enum Proj)(i % PROJ_COUNT);
        size_t R = (size_t)s->rank[i];
        size_t A[2] = {R, (size_t)proj_in(c, p)}, B[2] = {(size_t)proj_out(c, p), R};
        char name[TENSOR_NAME];
        const StTensor *t;
        tensor_name(name, i, 'A');
        if (!st_need(file, &t, name, 2, A, err)) return false;
        tensor_name(name, i, 'B');
        if (!st_need(file, &t, name, 2, B, err)) return false;
        expected += 2;
    }
    for (size_t k = 0; st_count(file) != expected && k < st_count(file); k++) {
        const StTensor *t = st_at(file, k);
        bool known = false;
        for (int i = 0; i < c->L * PROJ_COUNT && !known; i++) {
            char a[TENSOR_NAME], b[TENSOR_NAME];
            tensor_name(a, i, 'A'), tensor_name(b, i, 'B');
            known = s->rank[i] > 0 && (strcmp(t->name, a) == 0 || strcmp(t->name, b) == 0);
        }
        if (!known)
            return err_set(
                err, EXIT_INPUT,
                "%s: tensor %s: expected only LoRA matrices of the modules that "
                "adapter_config.json targets in a model of %d layers; give both files of "
                "one adapter",
                t->file, t->name, c->L);
    }
    return true;
}

/* One NaN in an adapter would make NaN of everything. */
static bool read_matrix(Lora *l, const StSet *file, int i, char which, float *to, Err *err) {
    char name[TENSOR_NAME];
    tensor_name(name, i, which);
    const StTensor *t = st_find(file, name);
    float *host = mem_array(t->count, sizeof *host);
    st_read_f32(t, host, 0, t->count);
    size_t bad = 0;
    while (bad < t->count && isfinite(host[bad])) bad++;
    exec_copy_in(l->ex, to, host, t->count * sizeof *host);
    exec_sync(l->ex);
    free(host);
    return bad == t->count ||
           err_set(err, EXIT_INPUT,
                   "%s: tensor %s: element %zu is NaN or infinite; take another checkpoint",
                   t->file, t->name, bad);
}

bool lora_load(Lora *l, Exec *ex, const Config *c, const char *folder, bool training, Err *err) {
    LoraShape shape;
    StSet *file = NULL;
    memset(l, 0, sizeof *l);
    if (!peft_read(&shape, c, folder, err)) return false;
    bool ok =
        st_open_folder(&file, folder, "adapter_model", err) && check_tensors(file, &shape, c, err);
    if (ok) {
        lora_init(l, ex, c, &shape, training);
        for (int i = 0; i < c->L * PROJ_COUNT && ok; i++)
            ok = l->adapter[i].R == 0 || (read_matrix(l, file, i, 'A', l->adapter[i].A, err) &&
                                          read_matrix(l, file, i, 'B', l->adapter[i].B, err));
        if (ok)
            lora_sync(l);
        else
            lora_free(l);
    }
    st_close(file);
    lora_shape_free(&shape);
    return ok;
}

/* --------------------------------------------------------------------------------- save -- */

static bool write_matrix(const Lora *l, StWriter *w, const float *from, size_t n, Err *err) {
    float *host = mem_array(n, sizeof *host);
    exec_copy_out(l->ex, host, from, n * sizeof *host);
    bool ok = st_writer_data(w, host, n * sizeof *host, err);
    free(host);
    return ok;
}

static bool save_tensors(const Lora *l, const char *path, Err *err) {
    StWriter *w;
    if (!st_writer_open(&w, path, err)) return false;
    st_writer_meta(w, "format", "pt");
    int n = l->c->L * PROJ_COUNT;
    char name[TENSOR_NAME];
    for (int i = 0; i < n; i++) {
        const Adapter *a = &l->adapter[i];
        if (a->R == 0) continue;
        size_t R = (size_t)a->R, A[2] = {R, (size_t)a->in}, B[2] = {(size_t)a->out, R};
        tensor_name(name, i, 'A');
        st_writer_tensor(w, name, ST_F32, 2, A);
        tensor_name(name, i, 'B');
        st_writer_tensor(w, name, ST_F32, 2, B);
    }
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        const Adapter *a = &l->adapter[i];
        size_t R = (size_t)a->R;
        if (R == 0) continue;
        ok = write_matrix(l, w, a->A, R * (size_t)a->in, err) &&
             write_matrix(l, w, a->B, R * (size_t)a->out, err);
    }
    if (ok) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

/* The model card. Its head is YAML, where a JSON string is a string too. */
static bool save_card(const Lora *l, const json_t *config, const char *path, Err *err) {
    const json_t *base = json_object_get(config, "base_model_name_or_path");
    char *quoted = json_dumps(base, JSON_ENCODE_ANY);
    char *targets = json_dumps(json_object_get(config, "target_modules"), 0);
    OutFile *f;
    bool ok = files_create(&f, path, err);
    if (ok) {
        FILE *out = files_stream(f);
        fprintf(out, "---\nbase_model: %s\nlibrary_name: peft\n", quoted);
        fprintf(out, "tags:\n- lora\n- sails\n---\n\n# LoRA adapter for a Gemma-2 model\n\n");
        fprintf(out, "Made by sails %s. It holds %zu parameters in float32 on %s.\n\n",
                SAILS_VERSION, lora_parameters(l), targets);
        fprintf(out,
                "```python\nfrom peft import PeftModel\n"
                "from transformers import AutoModelForCausalLM\n\n"
                "model = AutoModelForCausalLM.from_pretrained(%s)\n"
                "model = PeftModel.from_pretrained(model, \"this folder\")\n```\n",
                json_is_string(base) ? quoted : "\"the base model\"");
        ok = files_commit(f, err);
    }
    free(quoted), free(targets);
    return ok;
}

bool lora_save(Lora *l, const char *folder, const char *base_model, Err *err) {
    if (!files_mkdirs(folder, err)) return false;
    char *tensors = files_join(folder, "adapter_model.safetensors");
    char *config = files_join(folder, "adapter_config.json");
    char *card = files_join(folder, "README.md");
    json_t *json = peft_describe(l, base_model);
    bool ok = save_tensors(l, tensors, err) && save_card(l, json, card, err) &&
              files_write_json(config, json, err);
    json_decref(json);
    free(tensors), free(config), free(card);
    return ok;
}
