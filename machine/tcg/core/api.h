/* api.h: cdef.h as C sees it. */
#ifndef WB_API_H
#define WB_API_H

#include <stdint.h>

#include "../cdef.h"

#endif
