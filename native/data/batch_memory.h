// Memory of batches, used again: fresh memory costs a page fault every 4 KiB, and the system's time to clear it; what devices
// read by themselves costs more.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/memory.h"

namespace lth {

class BatchMemory : public std::enable_shared_from_this<BatchMemory> {
 public:
  // Back to whom it came from, or to the system where that is gone. From any thread, at any time.
  struct GiveBack {
    std::weak_ptr<BatchMemory> owner;
    size_t size = 0;
    const MemorySource* source = nullptr;
    void operator()(uint8_t* bytes) const noexcept;
  };
  using Bytes = std::unique_ptr<uint8_t[], GiveBack>;

  // At most so many pieces are kept that nobody holds. `source` outlives them all; null: the system's memory.
  static std::shared_ptr<BatchMemory> create(size_t most_kept, const MemorySource* source = nullptr);
  ~BatchMemory();
  BatchMemory(const BatchMemory&) = delete;
  BatchMemory& operator=(const BatchMemory&) = delete;

  // At least `size` bytes, of any value.
  Bytes take(size_t size);
  size_t kept() const;

 private:
  struct Piece {
    uint8_t* bytes;
    size_t size;
  };
  BatchMemory(size_t most_kept, const MemorySource& source);
  // False where enough are kept.
  bool keep(Piece piece) noexcept;

  const size_t most_kept_;
  const MemorySource& source_;
  mutable std::mutex mutex_;
  std::vector<Piece> kept_;
};

}  // namespace lth
