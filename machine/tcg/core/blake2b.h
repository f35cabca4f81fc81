/* blake2b.h: BLAKE2b-256 of many short messages of one length, several at once where the host can. */
#ifndef WB_BLAKE2B_H
#define WB_BLAKE2B_H

#include <stdint.h>

enum { BLAKE2B_BYTES = 32 };

/* Hashes message i, `len` bytes at msg[i], to out[i], unkeyed. SPEC: RFC 7693. */
void blake2b_256(const uint8_t *const *msg, uint64_t len, uint64_t n, uint8_t (*out)[BLAKE2B_BYTES]);

#endif
