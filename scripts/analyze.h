/* Included first by the analysers (scripts/analyze.sh), which see one source at a time: what fails returns the status it was given. */
#include "../base/base.h"
#define base_fail(error, status, ...) (base_fail(error, status, __VA_ARGS__), (status))
#define base_fail_where(error, status, where) (base_fail_where(error, status, where), (status))
