# --blocks and --ignore-layers leave the rest bit for bit; `fake` holds what the packed format means.
source "$(dirname "$0")/lib.sh"
command=(quantize "$tiny" "${small[@]}")
tensors "$tiny" >source.txt

expect 0 "${command[@]}" -o first --blocks 0
diff <(grep layers.1. source.txt) <(tensors first | grep layers.1.) || die "block 1 is not the source's"
grep -q 'layers.0.mlp.up_proj.qweight' <(tensors first) || die "block 0 is not quantized"
! grep -q 'layers.0.mlp.up_proj.weight' <(tensors first) || die "block 0 holds the original as well"

expect 0 "${command[@]}" -o ignored --ignore-layers k_proj,layers.1.mlp
diff <(grep -E 'k_proj|layers.1.mlp' source.txt) <(tensors ignored | grep -E 'k_proj|layers.1.mlp') || die "ignored layers are not the source's"
expect 0 eval ignored --json --limit 1 --seqlen 64

for other in norm embed; do
  diff <(grep $other source.txt) <(tensors ignored | grep $other) || die "$other is not the source's"
done

# Every other file of the checkpoint is there unchanged, those in folders as well; weights of other kinds are not.
cp -r "$tiny" full
mkdir full/additional_chat_templates
echo '{{ messages }}' >full/additional_chat_templates/tool.jinja
head -c 3000000 /dev/urandom >full/extra.dat
echo weights >full/pytorch_model.bin
expect 0 quantize full "${small[@]}" --method rtn -o copied
while read -r file; do cmp "full/$file" "copied/$file" || die "$file is not the source's"; done \
  < <(cd full && find . -type f ! -name config.json ! -name model.safetensors ! -name pytorch_model.bin)
absent copied/pytorch_model.bin

for grid in '--bits 4' '--bits 2 --asym' '--bits 3 --symmetry gptq-sym'; do
  formats=auto_round,gptq
  rm -rf both
  expect 0 "${command[@]}" $grid -o both --format auto_round,gptq,fake --restart
  values=()
  for format in auto_round gptq fake; do
    expect 0 eval both/$format --json --limit 1 --seqlen 128
    values+=("$(json out.txt /results/0/perplexity/value)")
  done
  holds "(${values[0]} / ${values[2]} - 1)^2 < 1e-12"
  holds "(${values[1]} / ${values[2]} - 1)^2 < 1e-12"
done

# --nblocks: two blocks tuned as one give other weights, one entry in the report, and there are no more than two.
expect 0 quantize "$tiny" "${small[@]}" -o apart
expect 0 quantize "$tiny" "${small[@]}" --nblocks 2 -o joined
finished joined
holds "$(json joined/signround.json /blocks/0/loss_best) > 0"
! "$JSON_VALUE" joined/signround.json /blocks/1/index >/dev/null 2>&1 || die "two entries for one unit"
! cmp -s apart/model.safetensors joined/model.safetensors || die "--nblocks changed nothing"
expect 0 quantize "$tiny" "${small[@]}" --nblocks 3 -o more
same joined/model.safetensors more/model.safetensors
refuses 2 '--nblocks tunes blocks together' quantize "$tiny" --method gptq --nblocks 2 -o no

# GPTQ v1 cannot store a zero point of 0: such groups are turned round, counted, and mean the same weights.
expect 0 quantize "$tiny" --method rtn --asym --group-size 2 --format gptq_v1,fake -o turned
holds "$(json turned/signround.json /blocks/0/rewritten_groups) > 0"
values=()
for format in gptq_v1 fake; do
  expect 0 eval turned/$format --json --limit 1 --seqlen 128
  values+=("$(json out.txt /results/0/perplexity/value)")
done
holds "(${values[0]} / ${values[1]} - 1)^2 < 1e-12"
