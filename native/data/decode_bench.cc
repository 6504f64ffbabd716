#include "data/decode_bench.h"

#include <atomic>
#include <chrono>
#include <exception>

#include "core/pool.h"
#include "data/picture_input.h"

namespace lth {

std::optional<DecodeTimes> time_decode(const PictureSet& set, const std::vector<int32_t>& rows, int threads,
                                       const std::function<bool()>& stopping) {
  std::vector<std::vector<std::byte>> files(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    set.read(rows[i], files[i]);
    if (stopping()) return std::nullopt;
  }
  Pool pool(threads);
  std::vector<PictureInput> inputs(static_cast<size_t>(threads));
  std::vector<std::exception_ptr> errors(rows.size());
  std::atomic<int64_t> pixels{0};
  const auto start = std::chrono::steady_clock::now();
  pool.parallel(static_cast<int64_t>(rows.size()), [&](int64_t i) {
    if (stopping()) return;
    try {
      const auto row = static_cast<size_t>(i);
      const Patch patch = inputs[static_cast<size_t>(Pool::thread())].decode(files[row], set.path(rows[row]), true);
      pixels += patch.height * patch.width;
    } catch (...) {
      errors[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  if (stopping()) return std::nullopt;
  return DecodeTimes{.seconds = seconds.count(), .pixels = static_cast<double>(pixels.load())};
}

}  // namespace lth
