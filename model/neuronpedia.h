/* neuronpedia.h - where the features of a published SAE are explained. */
#ifndef SAILS_NEURONPEDIA_H
#define SAILS_NEURONPEDIA_H

/* "gemma-2-2b/20-gemmascope-res-16k" from a path that names the Gemma Scope release and the SAE,
 * ".../gemma-scope-2b-pt-res/.../layer_20/width_16k/average_l0_71/..."; malloc; "" when it does
 * not. The page of feature i is https://www.neuronpedia.org/ID/i. */
char *neuronpedia_id(const char *path);

#endif
