// exp(x) for float vectors, x <= 0 in use (softmax subtracts the maximum). Cephes' expf: round to a power of two,
// then a polynomial of degree 6; below 2 ulp. Our own, because the C library's differs between its versions and
// CPUs, and this one is part of the bits that a run promises. NaN stays NaN.
static inline vec exponential(vec x) {
  const vec low = splat(-87.0f);
  const vec clamped = x < low ? low : x;
  const vec shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec n = fma(clamped, splat(1.44269504088896341f), shift) - shift;
  vec r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + splat(1.0f));
  return x < low ? splat(0.0f) : p * power_of_two(n);
}
static inline float logarithm(float x) { return static_cast<float>(::log(static_cast<double>(x))); }
