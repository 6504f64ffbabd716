#include "data/batch_memory.h"

#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lth {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

std::align_val_t alignment_of(size_t size) { return std::align_val_t{size < kHugePage ? 64 : kHugePage}; }

class System final : public MemorySource {
 public:
  uint8_t* allocate(size_t size) const override {
    auto* bytes = static_cast<uint8_t*>(::operator new(size, alignment_of(size)));
#if defined(__linux__)
    // One fault for 512 pages. A wish: where it is refused, small pages do. The end that is no whole huge page has small ones.
    if (size >= kHugePage) ::madvise(bytes, size / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    return bytes;
  }
  void release(uint8_t* bytes, size_t size) const noexcept override { ::operator delete(bytes, alignment_of(size)); }
};

// Never destroyed: pieces come back after the destructors of such variables.
const MemorySource& system_memory() {
  static const auto& system = *new System;
  return system;
}

}  // namespace

void BatchMemory::GiveBack::operator()(uint8_t* bytes) const noexcept {
  // Where it is the last one, its owner goes after the lock in `keep` does.
  const std::shared_ptr<BatchMemory> to = owner.lock();
  if (!to || !to->keep({bytes, size})) source->release(bytes, size);
}

std::shared_ptr<BatchMemory> BatchMemory::create(size_t most_kept, const MemorySource* source) {
  return std::shared_ptr<BatchMemory>(new BatchMemory(most_kept, source ? *source : system_memory()));
}

BatchMemory::BatchMemory(size_t most_kept, const MemorySource& source) : most_kept_(most_kept), source_(source) {
  kept_.reserve(most_kept);
}

BatchMemory::~BatchMemory() {
  for (const Piece& piece : kept_) source_.release(piece.bytes, piece.size);
}

bool BatchMemory::keep(Piece piece) noexcept {
  std::lock_guard lock(mutex_);
  if (kept_.size() >= most_kept_) return false;
  kept_.push_back(piece);
  return true;
}

BatchMemory::Bytes BatchMemory::take(size_t size) {
  std::vector<Piece> small;
  {
    std::lock_guard lock(mutex_);
    // The last one given back first: the processor may have some of it yet.
    for (size_t i = kept_.size(); i-- > 0;) {
      if (kept_[i].size < size) continue;
      const Piece piece = kept_[i];
      kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(i));
      return Bytes(piece.bytes, {weak_from_this(), piece.size, &source_});
    }
    // Batches got larger: those that are kept are of no more use.
    small.reserve(most_kept_);
    std::swap(small, kept_);
  }
  for (const Piece& piece : small) source_.release(piece.bytes, piece.size);
  return Bytes(source_.allocate(size), {weak_from_this(), size, &source_});
}

size_t BatchMemory::kept() const {
  std::lock_guard lock(mutex_);
  return kept_.size();
}

}  // namespace lth
