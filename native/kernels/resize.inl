// Over `ints`, a vector of kLanes times 128 bits, and the few operations on it that the including file has. Those of
// bytes and words work on each 128 bits by themselves.

void mix_rows(const RowPair* rows, int64_t pairs, int64_t n, int16_t* to) {
  constexpr int kShift = kWeightBits - kLineBits;
  constexpr int64_t kBytes = sizeof(ints);
  if (n < kBytes) {
    for (int64_t i = 0; i < n; ++i) {
      int32_t sum = 1 << (kShift - 1);
      for (int64_t p = 0; p < pairs; ++p) sum += rows[p].weights[0] * rows[p].rows[0][i] + rows[p].weights[1] * rows[p].rows[1][i];
      to[i] = static_cast<int16_t>(sum >> kShift);
    }
    return;
  }
  const ints zero = repeat(0), half = repeat(1 << (kShift - 1));
  for (int64_t next = 0; next < n; next += kBytes) {
    const int64_t i = next < n - kBytes ? next : n - kBytes;  // the last vector overlaps the one before
    ints sum[4] = {half, half, half, half};
    for (int64_t p = 0; p < pairs; ++p) {
      int32_t both;
      std::memcpy(&both, rows[p].weights, sizeof both);
      const ints w = repeat(both), a = load(rows[p].rows[0] + i), b = load(rows[p].rows[1] + i);
      const ints low = low_bytes(a, b), high = high_bytes(a, b);
      sum[0] = add(sum[0], multiply_add(low_bytes(low, zero), w));
      sum[1] = add(sum[1], multiply_add(high_bytes(low, zero), w));
      sum[2] = add(sum[2], multiply_add(low_bytes(high, zero), w));
      sum[3] = add(sum[3], multiply_add(high_bytes(high, zero), w));
    }
    for (ints& one : sum) one = shifted<kShift>(one);
    store_in_order(to + i, to_words(sum[0], sum[1]), to_words(sum[2], sum[3]));
  }
}

// kPairs: as many, which lets their loop be none; 0: any number.
template <int kPairs>
void mix_pairs(const int16_t* line, const int32_t* first, const PixelWeights* weights, int64_t pairs, int64_t width,
               uint32_t* to) {
  constexpr int kShift = kWeightBits + kLineBits;
  const ints half = repeat(1 << (kShift - 1));
  const int64_t count = kPairs > 0 ? kPairs : pairs;
  const auto mix = [&](int j) {
    const PixelWeights* w = weights + j * count * kLanes;
    ints sum = half;
    for (int64_t p = 0; p < count; ++p) {
      sum = add(sum, multiply_add(colour_pairs(line + 6 * p, first + j), load(w + p * kLanes)));
    }
    return shifted<kShift>(sum);
  };
  for (int64_t x = 0; x < width; x += 4 * kLanes) {
    const ints low = to_words(mix(0), mix(1)), high = to_words(mix(2), mix(3));
    store(to + x, to_bytes(low, high));
    first += 4 * kLanes;
    weights += 4 * kLanes * count;
  }
}

void mix_columns(const int16_t* line, const int32_t* first, const PixelWeights* weights, int64_t pairs, int64_t width,
                 uint32_t* to) {
  switch (pairs) {
    case 1: return mix_pairs<1>(line, first, weights, pairs, width, to);
    case 2: return mix_pairs<2>(line, first, weights, pairs, width, to);
    case 3: return mix_pairs<3>(line, first, weights, pairs, width, to);
    default: return mix_pairs<0>(line, first, weights, pairs, width, to);
  }
}

void split_planes(const uint32_t* __restrict pixels, int64_t width, uint8_t* __restrict red, uint8_t* __restrict green,
                  uint8_t* __restrict blue) {
  for (int64_t x = 0; x < width; ++x) red[x] = static_cast<uint8_t>(pixels[x]);
  for (int64_t x = 0; x < width; ++x) green[x] = static_cast<uint8_t>(pixels[x] >> 8);
  for (int64_t x = 0; x < width; ++x) blue[x] = static_cast<uint8_t>(pixels[x] >> 16);
}
