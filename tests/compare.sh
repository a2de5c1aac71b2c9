# compare makes the results that quantize makes, and prints what eval says of them.
source "$(dirname "$0")/lib.sh"
settings=(--group-size 32 --lr 0.02 --nsamples 8 --seqlen 64 --batch-size 4 --compute-dtype float32 --threads 1)
expect 0 compare "$tiny" "${settings[@]}" --methods rtn,gptq --eval-limit 2 --eval-seqlen 64 -o all --json
cp out.txt table.json
for k in 0 1; do
  holds "$(json table.json /methods/$k/eval/kl/mean) > 0"
  holds "$(json table.json /methods/$k/result_bytes) > 0"
  # 4 bits, and for 32 weights a scale of 16 and a zero point of 4.
  [ "$(json table.json /methods/$k/bits_per_weight)" = 4.625 ] || die "other bits"
done
expect 0 quantize "$tiny" "${settings[@]}" --method gptq -o alone
same alone/model.safetensors all/gptq/model.safetensors
expect 0 eval all/gptq --reference "$tiny" --limit 2 --seqlen 64 --json
[ "$(json out.txt /results/0/kl/mean)" = "$(json table.json /methods/1/eval/kl/mean)" ] || die "another divergence than eval's"
expect 0 compare "$tiny" "${settings[@]}" --methods rtn --eval-limit 2 --eval-seqlen 64 -o all
grep -qE '^method +bits +size MB +seconds +memory MB +perplexity +KL +same top' out.txt || die "another head"
grep -qE '^rtn +4.625 ' out.txt || die "no row"
expect 0 inspect all/rtn --json
[ "$(json out.txt '/kinds/W4 g32 sym/bits_per_weight')" = 4.625 ] || die "inspect counts other bits: $(cat out.txt)"
# NF4 has its own levels and format, whatever the flags say of the others.
expect 0 compare "$tiny" "${settings[@]}" --bits 3 --format gptq --methods rtn,nf4 --eval-limit 2 --eval-seqlen 64 -o three --json
holds "$(json out.txt /methods/1/eval/kl/mean) < $(json out.txt /methods/0/eval/kl/mean)"
holds "$(json out.txt /methods/1/bits_per_weight) > 4.127 && $(json out.txt /methods/1/bits_per_weight) < 4.6"  # each layer has tables of 272 floats
grep -q bitsandbytes__nf4 <(tensors three/nf4) || die "no NF4"
refuses 2 "'awq2' is none of rtn" compare "$tiny" --methods awq2 -o all
refuses 2 'is decided by --methods' compare "$tiny" --methods rtn --method gptq -o all
# A method that fails is a row and the exit code; the others are there all the same.
expect 2 compare "$tiny" "${settings[@]}" --iters 4 --nblocks 2 --methods rtn,signround --eval-limit 2 --eval-seqlen 64 -o failing
grep -q '^rtn .*exit code 2' out.txt || die "no row of the method that failed"
grep -q '^signround  *4.625 ' out.txt || die "no row of the other"
