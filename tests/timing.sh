# --timing: one table for each block and one for the whole run; the parts of each sum to its whole, and none is negative.
source "$(dirname "$0")/lib.sh"
expect 0 quantize "$tiny" "${small[@]}" --timing -o out
cp err.txt tables.txt
finished out
[ "$(grep -c 'timing: block' tables.txt)" = 2 ] || die "expected the tables of two blocks"
[ "$(grep -c 'timing: whole run' tables.txt)" = 1 ] || die "no table of the whole run"
for part in linears.forward linears.weight_gradient attention.backward gather loss 'step and fake quantization' pack; do
  grep -qE "^ +$part +[0-9.]+ s" tables.txt || die "no line of $part"
done
expect 0 quantize "$tiny" "${small[@]}" --method gptq --timing -o gptq
for part in observer factor journal 'lay out' 'measuring the machine'; do
  grep -qE "^ +$part +[0-9.]+ s" err.txt || die "no line of $part"
done
awk '/ s +-?[0-9.]+%/ {
       for (i = 2; i <= NF; ++i) if ($i == "s") seconds = $(i - 1)
       if (seconds < 0) { print "negative: " $0; exit 1 }
       if ($1 != "whole") { sum += seconds; ++parts; next }
       ++tables
       if (sum - seconds > 0.0006 * (parts + 1) || seconds - sum > 0.0006 * (parts + 1)) { print sum " of " seconds; exit 1 }
       sum = parts = 0
     }
     END { if (tables != 3) { print tables " tables"; exit 1 } }' tables.txt || die "the parts do not sum to the whole"
