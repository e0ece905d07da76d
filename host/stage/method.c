/* method.c - the rates. */
#include "host/stage/method.h"

double method_rate(const Args *a) {
    static const double usual[] = {[METHOD_FULL] = 2e-5, [METHOD_DPO] = 1e-5};
    bool given = a->source[args_find("train.lr")] != FROM_DEFAULT;
    return given || a->s.train.method == METHOD_LORA ? a->s.train.lr : usual[a->s.train.method];
}
