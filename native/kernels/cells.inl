// How a vector of examples is read and written, and what a product of two is: of storage that is the arithmetic's own.
template <typename S>
struct Cells {
  using data = vec;
  static inline vec read(const S* p) { return load(p); }
  static inline void write(S* p, vec v) { store(p, v); }
  static inline vec repeat(const S* p) { return splat(*p); }
  static inline vec dot(vec a, vec b, vec sum) { return fma(a, b, sum); }
  static inline void unpack(vec v, vec (&to)[1]) { to[0] = v; }
  static inline vec pack(const vec (&v)[1]) { return v[0]; }
};

template <typename S>
using Pack = vec[kPack<S>];  // kWidth examples of a plane: a vector for each of its channels

// A vector's part of a cell.
template <typename S>
constexpr int64_t kStep = kWidth * kPack<S>;

template <typename S>
static inline __attribute__((always_inline)) void load_cell(const S* p, Pack<S>& v) {
  Cells<S>::unpack(Cells<S>::read(p), v);
}
template <typename S>
static inline __attribute__((always_inline)) void store_cell(S* p, const Pack<S>& v) {
  Cells<S>::write(p, Cells<S>::pack(v));
}
