#!/usr/bin/env python3
"""Writes src/signround/text/unicode_reference.inc: where the reference's Unicode tables differ from those of Unicode 14.

The reference (tokenizers 0.23.3) uses several versions at once: Oniguruma's for regular expressions (Unicode 16), Rust's own
(17), and crates of old versions for punctuation, accents and normal forms. Found by asking it about every code point."""
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CHARS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALL = "".join(CHARS)
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()


def matches(pattern):
    mark = "\u0001"
    out = normalizers.Replace(Regex(pattern), mark).normalize_str(ALL)
    found = {c for c, o in zip(CHARS, out) if o == mark and c != mark}
    return found | ({mark} if normalizers.Replace(Regex(pattern), "").normalize_str(mark) == "" else set())


def ranges(pairs):
    out = []
    for cp, value in sorted(pairs):
        if out and out[-1][1] == cp - 1 and out[-1][2] == value:
            out[-1][1] = cp
        else:
            out.append([cp, cp, value])
    return out


def table(name, kind, rows):
    text = f"constexpr {kind} {name}[] = {{\n"
    line = "   "
    for row in rows:
        item = " {" + ", ".join(row) + "},"
        if len(line) + len(item) > 116:
            text += line + "\n"
            line = "   "
        line += item
    return text + line + "\n};\n"


def exceptions(reference, base):
    return ranges([(ord(c), "true") for c in reference - base] + [(ord(c), "false") for c in base - reference])


category = {}
for name in CATEGORIES:
    for c in matches(r"\p{" + name + "}"):
        category[c] = name
newer = ranges((ord(c), f"UTF8PROC_CATEGORY_{category[c].upper()}") for c in CHARS if unicodedata.category(c) != category[c])
of = lambda first: {c for c in CHARS if category[c][0] in first}
punctuation = {c for c in CHARS if not pre_tokenizers.Punctuation("removed").pre_tokenize_str(c)} - {chr(c) for c in range(128)}
numeric = {c for c in CHARS if len(pre_tokenizers.Digits(True).pre_tokenize_str("ab" + c)) == 2}
word = {c for c in CHARS if len(pre_tokenizers.Whitespace().pre_tokenize_str("a" + c + "a")) == 1}
mark = {c for c in CHARS if normalizers.StripAccents().normalize_str(c) == ""}
nonspacing = {c for c in CHARS if normalizers.BertNormalizer(False, False, True, False).normalize_str(c) == ""}
control = {c for c in CHARS if normalizers.BertNormalizer(True, False, False, False).normalize_str(c) == ""} - {"\ufffd"}
base_word = of("LM") | {c for c in CHARS if category[c] in ("Nd", "Nl", "Pc")}
circled = {chr(c) for r in ((0x24B6, 0x24EA), (0x1F130, 0x1F14A), (0x1F150, 0x1F16A), (0x1F170, 0x1F18A)) for c in range(*r)}
base_control = {c for c in CHARS if category[c] in ("Cc", "Cf", "Co")} - set("\t\n\r")
lower = ranges((ord(c), ord(normalizers.Lowercase().normalize_str(c)) - ord(c)) for c in CHARS
               if len(normalizers.Lowercase().normalize_str(c)) == 1 and normalizers.Lowercase().normalize_str(c) != c.lower())
# Cyrillic modifier letters: of Unicode 15, which this Python may not know.
kept = [[0x1E030, 0x1E06D, "x"]] + ranges((ord(c), "x") for c in CHARS if normalizers.NFKD().normalize_str(c) == c != unicodedata.normalize("NFKD", c))

with open("src/signround/text/unicode_reference.inc", "w", encoding="utf-8") as out:
    out.write("// Made by scripts/peers/make_unicode_reference.py with tokenizers 0.23.3.\n")
    hexes = lambda rows: [[f"0x{a:X}", f"0x{b:X}", str(v)] for a, b, v in rows]
    out.write("// General categories of Unicode 16 that Unicode 14 does not have.\n")
    out.write(table("kNewerCategories", "CategoryRange", hexes(newer)))
    for name, reference, base in (("Punctuation", punctuation, of("P") - {chr(c) for c in range(128)}), ("Number", numeric, of("N")),
                                  ("Word", word, base_word | circled | {"\u200c", "\u200d"}), ("Mark", mark, of("M")),
                                  ("Nonspacing", nonspacing, {c for c in CHARS if category[c] == "Mn"}), ("Control", control, base_control)):
        out.write(f"// Where the reference's own notion differs from the categories above: whether the range belongs to it.\n")
        out.write(table(f"k{name}Exceptions", "Exception", hexes(exceptions(reference, base)) or [["0", "0", "false"]]))
    out.write("// Lower case of letters that had none in Unicode 14: first, last, distance.\n")
    out.write(table("kNewerLowercase", "CaseRange", hexes(lower)))
    out.write("// Characters that the reference's normal forms do not decompose, but Unicode 14's do.\n")
    out.write(table("kNotDecomposed", "CodeRange", [r[:2] for r in hexes(kept)]))
