# The same command gives the same bytes; another seed gives others.
source "$(dirname "$0")/lib.sh"
for threads in 1 2; do
  rm -rf a b c
  expect 0 quantize "$tiny" "${small[@]}" --threads $threads -o a
  expect 0 quantize "$tiny" "${small[@]}" --threads $threads -o b
  same a b
  expect 0 quantize "$tiny" "${small[@]}" --threads $threads -o c --seed 43
  different a c
done
# Where the result goes and how much is said do not matter.
expect 0 quantize "$tiny" "${small[@]}" --threads 2 -o deep/er/d --quiet
same a deep/er/d
