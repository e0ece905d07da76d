/* energy.c - the energy and the angles of every projection's delta, and their sums. */
#include "host/stage/energy.h"

#include <math.h>

#include "host/cli/json_lines.h"

/* Weighted by ||dW||^2. */
typedef struct EnergySum {
    double weight, energy, expected, variance;
} EnergySum;

static void add(EnergySum *s, const AdapterDelta *d) {
    double w = d->norm * d->norm;
    if (!(w > 0)) return;
    s->weight += w, s->energy += w * d->energy, s->expected += w * d->expected;
    s->variance += w * w * d->sd * d->sd;
}

static void put_sum(json_t *to, const EnergySum *s) {
    bool any = s->weight > 0;
    json_object_set_new(to, "energy", json_number(any ? s->energy / s->weight : NAN));
    json_object_set_new(to, "expected", json_number(any ? s->expected / s->weight : NAN));
    json_object_set_new(to, "sd", json_number(any ? sqrt(s->variance) / s->weight : NAN));
}

static json_t *describe(const AdapterDelta *d) {
    json_t *angles = json_array();
    for (int i = 0; i < adapter_delta_angles(d); i++)
        json_array_append_new(angles, json_number(d->angle[i]));
    return json_pack("{s:i, s:s, s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "layer",
                     d->layer, "projection", proj_name[d->p], "side",
                     d->writes ? "writes" : "reads", "subspace_layer", d->basis_layer, "d", d->d,
                     "columns", d->M, "rank", d->rank, "norm", json_number(d->norm), "energy",
                     json_number(d->energy), "expected", json_number(d->expected), "sd",
                     json_number(d->sd), "angles", angles);
}

bool energy_check(const Subspace *s, const Config *c, Err *err) {
    const char *file = s->file ? s->file : "the subspace";
    if (subspace_of(s) != BASIS_OF_STREAM)
        return err_set(err, EXIT_USAGE,
                       "%s: bases of what projections read or write; expected those of the stream, "
                       "written by sails subspace",
                       file);
    for (int i = 0; i < s->n; i++)
        if (s->basis[i].D != c->D || s->basis[i].layer >= c->L)
            return err_set(err, EXIT_INPUT,
                           "%s: layer %d of width %d; the model has %d layers of width %d", file,
                           s->basis[i].layer, s->basis[i].D, c->L, c->D);
    return true;
}

bool energy_make(json_t **energy, const Lora *l, const Subspace *s, Err *err) {
    if (!energy_check(s, l->c, err)) return false;
    json_t *projections = json_array(), *layers = json_array(), *all = json_object();
    EnergySum total = {0};
    for (int layer = 0; layer < l->c->L; layer++) {
        EnergySum sum = {0};
        bool any = false;
        for (enum Proj p = 0; p < PROJ_COUNT; p++) {
            if (lora_at(l, layer, p)->R == 0) continue;
            AdapterDelta d;
            adapter_delta(&d, l, layer, p, adapter_basis(s, layer, p));
            json_array_append_new(projections, describe(&d));
            add(&sum, &d), add(&total, &d);
            adapter_delta_free(&d);
            any = true;
        }
        if (!any) continue;
        json_t *one = json_pack("{s:i}", "layer", layer);
        put_sum(one, &sum);
        json_array_append_new(layers, one);
    }
    put_sum(all, &total);
    *energy = json_pack("{s:s, s:o, s:o, s:o}", "sails", "energy 1", "projections", projections,
                        "layers", layers, "total", all);
    return true;
}

static void print_sum(FILE *f, const char *what, const json_t *sum) {
    const json_t *energy = json_object_get(sum, "energy");
    if (!json_is_number(energy)) {
        fprintf(f, "%s: nothing was learnt\n", what);
        return;
    }
    fprintf(f, "%s: %.1f %% of the delta lies in the subspace; in a random one %.1f +- %.1f\n",
            what, 100 * json_number_value(energy),
            100 * json_number_value(json_object_get(sum, "expected")),
            100 * json_number_value(json_object_get(sum, "sd")));
}

void energy_print(FILE *f, const json_t *energy) {
    size_t i;
    const json_t *layer;
    json_array_foreach (json_object_get(energy, "layers"), i, layer) {
        char what[32];
        snprintf(what, sizeof what, "layer %d",
                 (int)json_integer_value(json_object_get(layer, "layer")));
        print_sum(f, what, layer);
    }
    print_sum(f, "all", json_object_get(energy, "total"));
}
