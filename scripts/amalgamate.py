#!/usr/bin/env python3
"""amalgamate.py FOLDER: writes the library as two files, FOLDER/segfm_amalgamation.c and FOLDER/segfm.h.

It holds segfm.c and every source file that it needs, directly or through others: which those are follows from the functions
that they call and define. Each file stays as it is but for this:
  - `#include "…"` becomes the text, once for a header with a guard, each time for one without (nn/kernel.h);
  - what a file keeps to itself (static functions and data, its types and enumerators) is renamed where another file has a
    word like it, `larger` of nn/segvol/model.c to `segvol_model_larger` (or, where there is one, `segvol_model_own_larger`);
  - the macros of a .c file end with it.
It relies on the layout that clang-format gives the sources.
"""
import os
import re
import sys

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
ROOMS = ["base", "weights", "nn", "nn/segvol", "vol"]  # in this order; then segfm.c

TOKEN = re.compile(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|(?:\.|->)?\b[A-Za-z_]\w*|.', re.S)
INCLUDE = re.compile(r'^#include "([^"]+)"$')
GUARD = re.compile(r"^#ifndef (SEGFM_\w*H)\n#define \1\n(.*)^#endif\n\Z", re.S | re.M)

HEAD = """/* segfm, the whole library in one file: add it and segfm.h, its manual, to a program. Made by `make amalgamation`; change the
   sources, not this.

       cc -std=c11 -O2 -c segfm_amalgamation.c         plain C11: libc and libm, of which a session needs mem…, str… and sqrt
       -fopenmp                                        threads
       -DSEGFM_NO_MALLOC                               no heap: models and sessions live in memory that the program gives
       -DNDEBUG                                        without its assertions
       -DNN_GENERIC                                    on x86-64: without the kernels for AVX2 and AVX-512

   None of these changes a bit of a result. A product and its sum must stay two roundings, which -std=c11 sees to; -ffast-math
   is refused.

%s*/
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#pragma clang diagnostic ignored "-Wunknown-pragmas"
#elif defined(__GNUC__)
#if !defined(__STRICT_ANSI__) && (defined(__FP_FAST_FMAF) || defined(__FP_FAST_FMA))
#error "results are defined bit by bit: -std=c11 keeps gcc from fusing products and sums here"
#endif
#ifndef _OPENMP
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif
#endif

"""


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def target(path, include):
    return os.path.normpath(os.path.join(os.path.dirname(path), include))


def declarations(text):
    """The top-level declarations of a text, without comments, strings and directives."""
    text = re.sub(r"^[ \t]*#(?:.*\\\n)*.*\n", "", text, flags=re.M)
    text = "".join(" " if t[:2] == "/*" else '""' if t[0] in "\"'" else t for t in TOKEN.findall(text))
    depth, start = 0, 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth > 0 or c not in ";}":
            continue
        if c == ";" or not re.match(r"\s*(\w+\s*(\[[^]]*\]\s*)*)?[;=,]", text[i + 1 :]):  # or the end of a function
            yield text[start : i + 1].strip()
            start = i + 1


def names_of(text):
    """(private, public): what a text's top level declares for itself, and the functions that it defines for others."""
    private, public = set(), set()
    for d in declarations(text):
        outline = d
        while "{" in outline:
            outline = re.sub(r"{[^{}]*}", "", outline)
        head = outline.split("=")[0].rstrip("; ")
        private.update(re.findall(r"\b(?:struct|union|enum) (\w+) {", d))
        for body in re.findall(r"\benum(?: \w+)? {([^}]*)}", d):
            private.update(re.findall(r"(?:^|,)\s*([A-Z]\w*)", body))
        function = re.search(r"\b(\w+)\(", head)
        if d.startswith("typedef"):
            name = function or re.search(r"(\w+)(?:\[[^]]*\])*$", head)
            private.add(name.group(1))
        elif function and d.endswith("}"):
            (private if d.startswith("static") else public).add(function.group(1))
        elif d.startswith("static"):
            private.update(re.findall(r"(\w+)(?:\[[^]]*\])*$", head))
    return private, public


def needed_files():
    """The library's source files: those that define what segfm.c calls, and what those call, in the order of the rooms."""
    sources = [f"{room}/{name}" for room in ROOMS for name in sorted(os.listdir(os.path.join(ROOT, room)))]
    sources = [path for path in sources if path.endswith(".c")] + ["segfm.c"]
    defined_in = {name: path for path in sources for name in names_of(read(path))[1]}
    needed, left = set(), ["segfm.c"]
    while left:
        path = left.pop()
        if path not in needed:
            needed.add(path)
            left += {defined_in[word] for word in re.findall(r"\w+", code_of(path)) if word in defined_in}
    return [path for path in sources if path in needed]


def code_of(path):
    return "".join(t for t in TOKEN.findall(read(path)) if t[:2] != "/*" and t[0] != '"')


def inlined(path, seen, rename):
    """The text of a file with its includes in place. seen: headers that are there already, system headers by their line;
    rename: of the text of the file itself."""
    text = read(path)
    guard = GUARD.search(text)
    text = text[: guard.start()] + guard.group(2) if guard else rename(text)
    depth, lines = 0, []
    for line in text.splitlines():
        directive = re.match(r"#\s*(if|endif)", line)
        if directive:
            depth += 1 if directive.group(1) == "if" else -1
        include = INCLUDE.match(line)
        if include:
            header = target(path, include.group(1))
            if header not in seen:
                if GUARD.search(read(header)):
                    seen.add(header)
                lines += inlined(header, seen, rename).splitlines()
        elif line.startswith("#include <") and depth == 0:
            if line not in seen:
                lines.append(line)
            seen.add(line)
        else:
            lines.append(line)
    return "\n".join(lines).strip("\n") + "\n"


def renamed(text, names, prefix):
    """Identifiers, but no members; nothing in comments and strings."""
    return "".join(prefix + t if t in names else t for t in TOKEN.findall(text))


def macros_of(path):
    """Those of a .c file; what it includes without a guard cleans up after itself."""
    return sorted(set(re.findall(r"^\s*#\s*define (\w+)", read(path), re.M)) - set(re.findall(r"#undef (\w+)", read(path))))


def rule(title):
    return f"/* ==== {title} {'=' * (110 - len(title))} */\n\n"


def amalgamation():
    files = needed_files()
    private = {path: names_of(read(path))[0] for path in files}
    words = {path: set(TOKEN.findall(code_of(path))) for path in files}
    taken = set().union(*words.values())
    notice = "".join(f"   {line}".rstrip() + "\n" for line in read("LICENSE").strip().splitlines())
    seen = {"segfm.h", "base/status.h"}
    out = HEAD % notice.lstrip("\n") + '#include "segfm.h"\n\n'
    for path in files:
        clashing = {name for name in private[path] for other in files if other != path and name in words[other]}
        prefix = "session_" if path == "segfm.c" else "_".join(path[:-2].split("/")[-2:]) + "_"
        while any(prefix + name in taken for name in clashing):
            prefix += "own_"
        body = inlined(path, seen, lambda text: renamed(text, clashing, prefix))
        kept = [name for name in macros_of(path) if not name.startswith("KERNEL_")]
        out += rule(path) + body + "".join(f"#undef {name}\n" for name in kept) + "\n"
    return out.rstrip("\n") + "\n"


def public_header():
    return inlined_public(read("segfm.h"))


def inlined_public(text):
    status = GUARD.search(read("base/status.h")).group(2).strip("\n")
    return text.replace('#include "base/status.h"', status)


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for name, text in (("segfm_amalgamation.c", amalgamation()), ("segfm.h", public_header())):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    print(" ".join(needed_files()))


if __name__ == "__main__":
    main()
