# Weights that are not finite are counted and named; --strict makes them an error; nothing else is spoiled by them.
source "$(dirname "$0")/lib.sh"
layer=model.layers.1.mlp.up_proj
"$MAKE_MODEL" "$tiny" spoiled --set $layer.weight 5 nan --set $layer.weight 130 inf --set $layer.weight 131 -inf
for method in rtn opt-rtn gptq signround; do
  expect 0 quantize spoiled "${small[@]}" --method $method -o $method
  grep -q "$layer.weight holds 3 values that are not finite, the first at row 0, column 5" err.txt || die "$method: not counted"
  grep -q 'not finite' <(json $method/signround.json /degradations) || die "$method: not in the report"
  finished $method
  expect 0 eval $method --json --limit 1 --seqlen 64
  holds "$(json out.txt /results/0/perplexity/value) > 1"
  refuses 9 'not finite' quantize spoiled "${small[@]}" --method $method -o strict-$method --strict
  whole strict-$method
done
# Only the groups that hold them differ from the clean model's.
expect 0 quantize "$tiny" "${small[@]}" --method rtn -o clean
[ "$(diff <(tensors clean) <(tensors rtn) | grep -c '^>.*up_proj')" -ge 1 ] || die "the spoiled layer is as the clean one"
[ "$(diff <(tensors clean) <(tensors rtn) | grep '^>' | grep -vc "$layer")" = 0 ] || die "another layer differs"
