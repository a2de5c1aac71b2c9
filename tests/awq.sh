# --awq folds channel factors into the model before it is rounded, and the files hold what was folded.
source "$(dirname "$0")/lib.sh"
command=(quantize "$tiny" "${small[@]}" --method opt-rtn --awq)

# At 8 bits little is lost, so the model with its scaled norms, rows and columns is the original.
expect 0 "${command[@]}" --bits 8 --format fake -o w8
finished w8
diff <(tensors "$tiny" | grep input_layernorm) <(tensors w8 | grep input_layernorm) >diff.txt && die "no norm took a factor"
expect 0 eval w8 --reference "$tiny" --limit 4 --seqlen 64 --json
holds "$(json out.txt /results/0/kl/mean) < 0.001"

# A run that is killed after a block goes on with the same factors.
expect 0 "${command[@]}" --bits 3 -o straight
n=8
until killed_at "$n" "${command[@]}" --bits 3 -o out && [ "$(cat out/.signround/journal.jsonl 2>/dev/null | wc -l)" = 2 ]; do
  rm -rf out
  n=$((n + 3))
done
expect 0 "${command[@]}" --bits 3 -o out
grep -q 'continuing: 1 of 2 blocks' err.txt || die "it did not continue"
! grep -q '^awq: block' err.txt || die "the factors were searched again"
same straight out

# Tuned after it, too; what cannot be is refused in the first second.
expect 0 quantize "$tiny" "${small[@]}" --awq --iters 2 -o tuned
finished tuned
refuses 2 '--awq reads text' quantize "$tiny" --method rtn --awq -o no
absent no
