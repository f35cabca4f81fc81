/* brief.h: for a file that is large and seldom run: -O2 would take twice as long to compile it, and gain
 * nothing that a boot shows. Included before everything else.
 */
#ifndef __clang__
#pragma GCC optimize("O1")
#endif
