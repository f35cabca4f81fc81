"""A compiled program that computes with vectors and without and compares; recorded, replayed, looked at with gdb."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_builtin import run
from tests.workbench.gdbstub.test_gdb import run_gdb

pytestmark = [pytest.mark.slow, pytest.mark.requires("riscv64-linux-gnu-gcc")]

PROGRAM = r"""
asm(".section .text.unlikely\n.globl _start\n_start: la sp, _start+0x100000\n"
    "li t0, 0x6600\n csrs mstatus, t0\n j main\n .text\n");

typedef unsigned long u64;
typedef unsigned char u8;
static u8 text[5000], copy[5000];
static float x[301], y[301], z[301];
static short a[777], b[777];

static u64 v_strlen(const u8 *s)
{
    const u8 *at = s;
    for (;;) {
        long found;
        u64 n;
        asm volatile("vsetvli %1, zero, e8, m4, ta, ma\n vle8ff.v v8, (%2)\n csrr %1, vl\n"
                     "vmseq.vi v0, v8, 0\n vfirst.m %0, v0" : "=r"(found), "=&r"(n) : "r"(at) : "memory");
        if (found >= 0)
            return at - s + found;
        at += n;
    }
}

static void v_copy(u8 *to, const u8 *from, u64 n)
{
    while (n) {
        u64 vl;
        asm volatile("vsetvli %0, %1, e8, m8, ta, ma\n vle8.v v8, (%2)\n vse8.v v8, (%3)"
                     : "=&r"(vl) : "r"(n), "r"(from), "r"(to) : "memory");
        n -= vl, from += vl, to += vl;
    }
}

static void v_saxpy(u64 n, float k, const float *p, float *q)
{
    while (n) {
        u64 vl;
        asm volatile("vsetvli %0, %1, e32, m8, ta, ma\n vle32.v v0, (%2)\n vle32.v v8, (%3)\n"
                     "vfmacc.vf v8, %4, v0\n vse32.v v8, (%3)"
                     : "=&r"(vl) : "r"(n), "r"(p), "r"(q), "f"(k) : "memory");
        n -= vl, p += vl, q += vl;
    }
}

static long v_dot(u64 n, const short *p, const short *q)
{
    long sum;
    asm volatile("vsetvli zero, zero, e64, m1, ta, ma\n vsetivli zero, 1, e64, m1, ta, ma\n vmv.s.x v24, zero");
    while (n) {
        u64 vl;
        asm volatile("vsetvli %0, %1, e16, m2, ta, ma\n vle16.v v2, (%2)\n vle16.v v4, (%3)\n"
                     "vwmul.vv v8, v2, v4\n vsetvli zero, zero, e32, m4, ta, ma\n vwredsum.vs v24, v8, v24"
                     : "=&r"(vl) : "r"(n), "r"(p), "r"(q) : "memory");
        n -= vl, p += vl, q += vl;
    }
    asm volatile("vsetivli zero, 1, e64, m1, ta, ma\n vmv.x.s %0, v24" : "=r"(sum));
    return sum;
}

static void say(const char *s)
{
    while (*s)
        *(volatile u8 *)0x10000000 = *s++;
}

static void told(const char *what, int good)
{
    say(what), say(good ? ": good\n" : ": BAD\n");
}

void main(void)
{
    u64 seed = 7;
    for (int i = 0; i < 4999; i++)
        text[i] = 1 + (seed = seed * 6364136223846793005ul + 1) % 255;
    for (int i = 0; i < 301; i++)
        x[i] = i * 0.37f - 40, y[i] = z[i] = i * -0.11f + 3;
    for (int i = 0; i < 777; i++)
        a[i] = (short)(i * 977), b[i] = (short)(i * -1313);
    told("strlen", v_strlen(text) == 4999 && v_strlen(text + 4990) == 9);
    v_copy(copy, text, 5000);
    int same = 1;
    for (int i = 0; i < 5000; i++)
        same &= copy[i] == text[i];
    told("copy", same);
    v_saxpy(301, 1.7f, x, y);
    same = 1;
    for (int i = 0; i < 301; i++)
        same &= y[i] == __builtin_fmaf(1.7f, x[i], z[i]);
    told("saxpy", same);
    long sum = 0;
    for (int i = 0; i < 777; i++)
        sum += (long)a[i] * b[i];
    told("dot", v_dot(777, a, b) == sum);
    asm volatile("vsetivli zero, 4, e32, m1, ta, ma\n vid.v v8\n vadd.vi v8, v8, 5");
    *(volatile unsigned *)0x100000 = 0x5555;
    for (;;)
        ;
}
"""


@pytest.fixture(scope="module", params=[128, 256])
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "program.c").write_text(PROGRAM)
    build = [
        "riscv64-linux-gnu-gcc",
        "-O2",
        "-march=rv64gcv",
        "-mabi=lp64d",
        "-mcmodel=medany",
        "-ffreestanding",
    ]
    build += ["-fno-builtin", "-nostdlib", "-static", "-fno-stack-protector", "-fno-pic", "-no-pie", "-g"]
    build += [
        "-Wl,-Ttext=0x80000000",
        "-Wl,-e,_start",
        "-Wl,--build-id=none",
        "-Wl,-n,--no-relax,--no-warn-rwx-segments",
    ]
    subprocess.run([*build, "-o", folder / "program", folder / "program.c"], check=True)
    out = folder / "program.trace"
    cpu = f"rv64,v=on,vlen={request.param}"
    text = run(
        "record",
        "-o",
        str(out),
        "--kernel",
        str(folder / "program"),
        "--bios",
        "none",
        "--cpu",
        cpu,
        "--no-input",
        "--steps",
        "3000000",
    )
    assert re.findall(r"(\w+): good", text) == ["strlen", "copy", "saxpy", "dot"], text
    return out


def test_a_program_with_vectors_replays_on_both_back_ends(trace: Path) -> None:
    for backend in ("jit", "interp"):
        assert "verified:" in run("replay", "--verify", str(trace), "--backend", backend)


@pytest.mark.requires("gdb-multiarch")
def test_gdb_has_the_vector_registers(trace: Path) -> None:
    text = run_gdb(
        trace, ["break v_copy", "continue", "monitor goto end", "p $v8.w[3]", "p/x $v8.b[4]", "p/x $vtype"]
    )
    assert "= 8" in text and "= 0x6" in text and "= 0xd0" in text, text


def test_the_repl_shows_vectors(trace: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "workbench",
        "debug",
        str(trace),
        "-c",
        "goto end",
        "-c",
        "info registers vector",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.search(r"v8 +0x([0-9a-f]*0000000)?8000000070000000600000005\b", text), text
    assert "SEW=e32 LMUL=m1" in text
