/* lora_file.c - PEFT adapter folders. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "model/peft.h"

/* --------------------------------------------------------------------------------- load -- */

static bool is_known(const Params *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->param[i].name, name) == 0) return true;
    return false;
}

/* Checks that the file holds exactly the tensors that the configuration speaks of. */
static bool check_tensors(const StSet *file, const Lora *l, Err *err) {
    const Params *p = &l->params;
    for (int i = 0; i < p->n; i++) {
        const StTensor *t;
        size_t dim[2] = {p->param[i].rows, p->param[i].cols};
        if (!st_need(file, &t, p->param[i].name, 2, dim, err)) return false;
    }
    for (size_t k = 0; st_count(file) != (size_t)p->n && k < st_count(file); k++) {
        const StTensor *t = st_at(file, k);
        if (!is_known(p, t->name))
            return err_set(
                err, EXIT_INPUT,
                "%s: tensor %s: expected only LoRA matrices of the modules that "
                "adapter_config.json targets in a model of %d layers; give both files of "
                "one adapter",
                t->file, t->name, l->c->L);
    }
    return true;
}

/* One NaN in an adapter would make NaN of everything. */
static bool read_param(const Lora *l, const StSet *file, const Param *p, Err *err) {
    const StTensor *t = st_find(file, p->name);
    float *host = mem_array(p->n, sizeof *host);
    st_read_f32(t, host, 0, p->n);
    size_t bad = 0;
    while (bad < p->n && isfinite(host[bad])) bad++;
    exec_copy_in(l->ex, p->master, host, p->n * sizeof *host);
    exec_sync(l->ex);
    free(host);
    return bad == p->n ||
           err_set(err, EXIT_INPUT,
                   "%s: tensor %s: element %zu is NaN or infinite; take another checkpoint",
                   t->file, t->name, bad);
}

bool lora_load(Lora *l, Exec *ex, const Config *c, const char *folder, bool training, Err *err) {
    LoraShape shape;
    StSet *file = NULL;
    memset(l, 0, sizeof *l);
    if (!peft_read(&shape, c, folder, err)) return false;
    lora_declare(l, ex, c, &shape);
    lora_shape_free(&shape);
    bool ok = st_open_folder(&file, folder, "adapter_model", err) && check_tensors(file, l, err);
    if (ok) params_allocate(&l->params, training);
    for (int i = 0; i < l->params.n && ok; i++) ok = read_param(l, file, &l->params.param[i], err);
    if (ok)
        params_sync(&l->params);
    else
        lora_free(l);
    st_close(file);
    return ok;
}

/* --------------------------------------------------------------------------------- save -- */

static float *host_of(const Lora *l, const Param *p) {
    float *host = mem_array(p->n, sizeof *host);
    exec_copy_out(l->ex, host, p->master, p->n * sizeof *host);
    return host;
}

static bool write_param(const Lora *l, StWriter *w, const Param *p, Err *err) {
    float *host = host_of(l, p);
    bool ok = st_writer_data(w, host, p->n * sizeof *host, err);
    free(host);
    return ok;
}

/* [B, -B0], row by row. */
static bool write_both(const Lora *l, StWriter *w, const Adapter *a, Err *err) {
    float *B = host_of(l, a->B), *B0 = host_of(l, a->B0);
    size_t R = (size_t)a->R;
    bool ok = true;
    for (size_t i = 0; i < a->B0->n; i++) B0[i] = -B0[i];
    for (size_t o = 0; o < (size_t)a->out && ok; o++)
        ok = st_writer_data(w, B + o * R, R * sizeof *B, err) &&
             st_writer_data(w, B0 + o * R, R * sizeof *B0, err);
    free(B), free(B0);
    return ok;
}

static bool write_adapter(const Lora *l, StWriter *w, const Adapter *a, Err *err) {
    if (!a->A0) return write_param(l, w, a->A, err) && write_param(l, w, a->B, err);
    return write_param(l, w, a->A, err) && write_param(l, w, a->A0, err) &&
           write_both(l, w, a, err);
}

static void declare_adapter(StWriter *w, const Adapter *a) {
    size_t columns = (size_t)adapter_columns(a);
    size_t A[2] = {columns, (size_t)a->in}, B[2] = {(size_t)a->out, columns};
    st_writer_tensor(w, a->A->name, ST_F32, 2, A);
    st_writer_tensor(w, a->B->name, ST_F32, 2, B);
}

/* In the checkpoint's order, A before B. */
static bool save_tensors(const Lora *l, const char *path, Err *err) {
    StWriter *w;
    if (!st_writer_open(&w, path, err)) return false;
    st_writer_meta(w, "format", "pt");
    int n = l->c->L * PROJ_COUNT;
    for (const Adapter *a = l->adapter; a < l->adapter + n; a++)
        if (a->R > 0) declare_adapter(w, a);
    bool ok = true;
    for (const Adapter *a = l->adapter; ok && a < l->adapter + n; a++)
        ok = a->R == 0 || write_adapter(l, w, a, err);
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
                SAILS_VERSION, params_elements(&l->params), targets);
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
