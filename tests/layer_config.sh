# Schemes of single layers are in the result as they were asked for, and what means no layer is refused.
source "$(dirname "$0")/lib.sh"
echo '{"down_proj": 8, "layers\\.1\\..*up_proj": {"bits": 2, "group_size": 16}, "model.layers.0.self_attn.q_proj": 16}' >config.json
expect 0 quantize "$tiny" --method rtn --group-size 32 --layer-config config.json --format auto_round,gptq,fake -o out
for format in auto_round gptq; do
  expect 0 inspect "out/$format"
  cp out.txt inspect.txt
  grep -q 'W8 g32' <(grep -E 'layers.0.mlp.down_proj' inspect.txt) || die "$format: down_proj: $(grep down_proj inspect.txt)"
  grep -q 'W2 g16' <(grep -E 'layers.1.mlp.up_proj' inspect.txt) || die "$format: up_proj: $(grep up_proj inspect.txt)"
  grep -q 'W4 g32' <(grep -E 'layers.0.mlp.up_proj' inspect.txt) || die "$format: up_proj: $(grep up_proj inspect.txt)"
  grep -qE 'layers.0.self_attn.q_proj.weight' inspect.txt || die "$format: q_proj was rounded"
done
# The weights that a reader of each packed format sees are those of `fake`.
for format in auto_round gptq; do
  expect 0 eval out/$format --reference out/fake --seqlen 64 --limit 2 --json
  cp out.txt kl.json
  holds "$(json kl.json /results/0/kl/mean) < 1e-6"
done
refuses 2 "no layer is meant by 'nothing'" quantize "$tiny" --method rtn --layer-config '{"nothing": 8}' -o refused
refuses 2 'bits is 5' quantize "$tiny" --method rtn --layer-config '{"up_proj": 5}' -o refused
refuses 2 'no file that can be read' quantize "$tiny" --method rtn --layer-config absent.json -o refused
