/* helpers.h: every helper of the RISC-V front end. X(name, flags): the function is helper_<name>.
 *
 *   probe_*   core/probe.c: exec: a = pc; call: a = target, b = return address, c = sp; ret: a = target, c =
 * sp; reg: a = slot csr       a = encoding, b = value of rs1 (immediate forms take it from the encoding);
 * returns the old value illegal   a = encoding sfence    a = encoding (sfence.vma): only the privilege
 * checks, the law makes it drop nothing cbo       a = encoding, b = vaddr: cache-block operations clz …
 * clmulr   a, b = operands sfence_inval   a = encoding: S-mode's and above sret, mret, wfi, ecall, ebreak
 *   trigger   a = pc: debug triggers of instructions
 *   lr_*      a = vaddr; returns the value        sc_*   a = vaddr, b = value; returns 0 on success, else 1
 *   amo_*     a = vaddr, b = value, c = funct5; returns the old value (_w sign-extended)
 *   v_*       a = encoding | row in vector.h << 32, b = scalar operand; v_load, v_store: b = base, c = stride
 *   vset      a = encoding, b = value of rs1, c = of rs2; returns vl
 *   f…        a, b, c = register images. Ops that round take rm (0..4, 7 = frm) in c; fused ones, with
 *             three operands, in hart->g->rm. A reserved rounding mode raises an illegal instruction
 *             (encoding in hart->g->rm_insn: see trans_rvf).
 */
#ifndef WB_RISCV_HELPERS_H
#define WB_RISCV_HELPERS_H

/* clang-format off */
#define RISCV_HELPERS_FMT(X, s)                                                                    \
    X(fadd_##s, 0) X(fsub_##s, 0) X(fmul_##s, 0) X(fdiv_##s, 0) X(fsqrt_##s, 0)                    \
    X(fmadd_##s, 0) X(fmsub_##s, 0) X(fnmsub_##s, 0) X(fnmadd_##s, 0)                              \
    X(fmin_##s, HF_NOLEAVE) X(fmax_##s, HF_NOLEAVE)                                                \
    X(feq_##s, HF_NOLEAVE) X(flt_##s, HF_NOLEAVE) X(fle_##s, HF_NOLEAVE) X(fclass_##s, HF_PURE | HF_NOLEAVE)   \
    X(fsgnj_##s, HF_PURE | HF_NOLEAVE) X(fsgnjn_##s, HF_PURE | HF_NOLEAVE) X(fsgnjx_##s, HF_PURE | HF_NOLEAVE) \
    X(fcvt_w_##s, 0) X(fcvt_wu_##s, 0) X(fcvt_l_##s, 0) X(fcvt_lu_##s, 0)                          \
    X(fcvt_##s##_w, 0) X(fcvt_##s##_wu, 0) X(fcvt_##s##_l, 0) X(fcvt_##s##_lu, 0)

#define RISCV_HELPERS(X)                                                                           \
    X(probe_exec, 0) X(probe_block, 0) X(probe_call, 0) X(probe_ret, 0) X(probe_reg, 0) X(csr, 0) X(illegal, 0) X(trigger, 0) X(sfence, 0) X(sfence_inval, 0)                                           \
    X(sret, 0) X(mret, 0) X(wfi, 0) X(ecall, 0) X(ebreak, 0)                                       \
    X(lr_w, 0) X(lr_d, 0) X(sc_w, 0) X(sc_d, 0) X(amo_w, 0) X(amo_d, 0)                            \
    RISCV_HELPERS_FMT(X, s) RISCV_HELPERS_FMT(X, d) X(fcvt_s_d, 0) X(fcvt_d_s, 0)                  \
    X(fcvt_s_h, 0) X(fcvt_h_s, 0) X(fcvt_d_h, 0) X(fcvt_h_d, 0) X(cbo, 0)                          \
    X(vset, 0) X(v_load, 0) X(v_store, 0) X(v_elementwise, 0) X(v_reduce, 0) X(v_whole, 0)         \
    X(clmul, HF_PURE | HF_NOLEAVE)    \
    X(clmulh, HF_PURE | HF_NOLEAVE) X(clmulr, HF_PURE | HF_NOLEAVE)
/* clang-format on */

enum {
/* clang-format off */
/* clang-format off */
#define X(name, flags) HELP_##name,
    /* clang-format on */
    /* clang-format on */
    RISCV_HELPERS(X)
#undef X
        N_HELPERS
};
#define X(name, flags) uint64_t helper_##name(Hart *h, uint64_t a, uint64_t b, uint64_t c);
RISCV_HELPERS(X)
#undef X

#endif
