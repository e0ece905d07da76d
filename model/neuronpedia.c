/* neuronpedia.c - the names by which published SAEs go there. */
#include "model/neuronpedia.h"

#include <stdio.h>

#include "data/base/mem.h"

/* Average L0 of the SAE that Neuronpedia shows under the plain name, by layer; others of the same
 * layer and width carry their L0 in the id. */
typedef struct Shown {
    const char *release, *model, *width;
    short l0[42]; /* 0: none */
} Shown;

static const Shown SHOWN[] = {
    {"2b-pt-res", "gemma-2-2b", "16k", {105, 102, 141, 59, 124, 68, 70, 69, 71, 73, 77, 80, 82,
                                        84,  84,  78,  78, 77,  74, 73, 71, 70, 72, 75, 73, 116}},
    {"2b-pt-res", "gemma-2-2b", "65k", {73,  121, 77,  89,  89,  105, 107, 107, 111,
                                        118, 128, 70,  72,  75,  73,  127, 128, 125,
                                        116, 115, 114, 111, 116, 123, 124, 93}},
    {"2b-pt-res", "gemma-2-2b", "32k", {[12] = 76}},
    {"2b-pt-res", "gemma-2-2b", "262k", {[12] = 121}},
    {"2b-pt-res", "gemma-2-2b", "524k", {[12] = 115}},
    {"2b-pt-res", "gemma-2-2b", "1m", {[5] = 114, [12] = 107, [19] = 88}},
    {"9b-pt-res", "gemma-2-9b", "16k", {129, 69,  67,  90,  91,  77,  93,  92,  99,  100, 113,
                                        118, 130, 132, 67,  131, 75,  73,  71,  132, 68,  129,
                                        123, 120, 114, 114, 116, 118, 119, 119, 120, 114, 111,
                                        114, 114, 120, 120, 124, 128, 131, 125, 113}},
    {"9b-pt-res", "gemma-2-9b", "131k", {41,  56,  70, 103, 101, 94,  120, 119, 72,  75,  84,
                                         88,  96,  99, 105, 103, 121, 117, 113, 110, 114, 109,
                                         105, 101, 97, 96,  97,  96,  98,  97,  95,  92,  88,
                                         91,  89,  94, 93,  96,  101, 99,  94,  84}},
    {"9b-pt-res", "gemma-2-9b", "32k", {[20] = 57}},
    {"9b-pt-res", "gemma-2-9b", "65k", {[20] = 55}},
    {"9b-pt-res", "gemma-2-9b", "524k", {[20] = 48}},
    {"9b-pt-res", "gemma-2-9b", "1m", {[9] = 122, [20] = 101, [31] = 77}},
    {"9b-it-res", "gemma-2-9b-it", "16k", {[9] = 88, [20] = 91, [31] = 76}},
    {"9b-it-res", "gemma-2-9b-it", "131k", {[9] = 121, [20] = 81, [31] = 109}},
    {"27b-pt-res", "gemma-2-27b", "131k", {[10] = 106, [22] = 82, [34] = 72}},
};

static const char *last_of(const char *text, const char *part) {
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, part)); p++) found = p;
    return found;
}

char *neuronpedia_id(const char *path) {
    const char *repo = last_of(path, "gemma-scope-"), *at = repo ? strstr(repo, "layer_") : NULL;
    int layer = -1, n = 0;
    unsigned l0 = 0;
    char width[8] = "", variant[32] = "", id[96] = "";
    if (!at ||
        sscanf(at, "layer_%2d/width_%7[0-9km]/%31[a-z0-9_]%n", &layer, width, variant, &n) != 3)
        return mem_string("");
    if (strcmp(variant, "canonical") != 0 && sscanf(variant, "average_l0_%u", &l0) != 1)
        return mem_string("");
    repo += sizeof "gemma-scope-" - 1;
    for (size_t i = 0; i < sizeof SHOWN / sizeof *SHOWN && layer >= 0 && layer < 42; i++) {
        const Shown *s = &SHOWN[i];
        size_t len = strlen(s->release);
        if (strncmp(repo, s->release, len) || (repo[len] != '/' && repo[len] != '-')) continue;
        if (strcmp(s->width, width) != 0) continue;
        if (l0 == 0 || (int)l0 == s->l0[layer])
            snprintf(id, sizeof id, "%s/%d-gemmascope-res-%s", s->model, layer, width);
        else
            snprintf(id, sizeof id, "%s/%d-gemmascope-res-%s__l0-%u", s->model, layer, width, l0);
    }
    return mem_string(id);
}
