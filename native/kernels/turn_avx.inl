// turn_place through 8 x 8 transpositions (transpose_avx.inl).
static void turn_place(const float* in, int64_t plane, int64_t planes, int64_t channels, float* out) {
  int64_t c = 0;
  for (; c + kBlock <= planes; c += kBlock) {
    for (int64_t n = 0; n < kLane; n += kBlock) transpose_block(in + c * plane + n, plane, out + n * channels + c, channels);
  }
  for (int64_t n = 0; n < kLane; ++n) {
    for (int64_t rest = c; rest < channels; ++rest) out[n * channels + rest] = rest < planes ? in[rest * plane + n] : 0;
  }
}
