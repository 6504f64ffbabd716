// Over `vec` of the including file, and kChains: as many as its registers hold beside the factors, and more than an
// operation takes cycles.
inline vec add_up(const vec (&sum)[kChains]) {
  vec all = sum[0];
  for (int i = 1; i < kChains; ++i) all += sum[i];
  return all;
}

inline int64_t fp32_loop(int64_t rounds, const float* in, float* out) {
  const vec factor = splat(in[0]), term = splat(in[1]);
  vec sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = splat(in[2]);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) sum[i] = fma(sum[i], factor, term);
  }
  const vec all = add_up(sum);
  std::memcpy(out, &all, sizeof(float));
  return rounds * kChains * kWidth * 2;
}
