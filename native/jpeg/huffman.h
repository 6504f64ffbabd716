// Baseline JPEG's entropy decoding, in the place of libjpeg-turbo's own, which takes two thirds of the time that a picture
// costs: what depends on the bit before is one look at a table and one shift. The coefficients are the same. Where a file has
// restart markers, the intervals between them that a window does not touch are not decoded at all: the next one is looked for.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>

// These want the ones above.
#include <jpeglib.h>

// libjpeg's own interface between its modules, which not all systems have; without it libjpeg-turbo decodes everything.
#if __has_include(<jpegint.h>)
#include <jpegint.h>
#define LTH_JPEG_MODULES 1
#endif

namespace lth {

#if LTH_JPEG_MODULES

class HuffmanDecoder : private jpeg_entropy_decoder {
 public:
  // Between jpeg_start_decompress and the first row: decodes what comes next of `decoder`, whose data lies in memory. Leaves
  // libjpeg's own in place where a file is of another kind: progressive, arithmetic, of several scans. Coefficients are wanted
  // of columns [left, left + width) of the rows of the output that are not skipped: damage that decoding those does not come
  // across is not noticed, and does not change them. Must stay where it is until the picture is done.
  void install(jpeg_decompress_struct& decoder, int64_t left, int64_t width);
  // Whether the picture ended in an error because its data is not what it should be; says so once. libjpeg's own decoder
  // warns and goes on: it should be asked instead.
  bool take_irregular() { return std::exchange(irregular_, false); }

 private:
  static constexpr int kPeek = 10;
  // What a code says, a byte each, in one word because everything waits for it. From the lowest: bits of the code and of the
  // number behind it, 0 where no code of kPeek bits fits; bits of the code; 64 less the bits of the number, 64 where there is
  // none; zeros before it, or without a number 15 for 16 zeros, less for the block's end.
  using Entry = uint32_t;
  struct Table {
    Entry entries[1 << kPeek];  // by the next kPeek bits
    int32_t end[17];            // of the codes of each length, the first one behind
    int32_t place[17];          // of a code of each length in `symbols`, less the code
    uint8_t symbols[256];
    JHUFF_TBL made_of{};
    bool made = false;
    void make(const JHUFF_TBL& from, bool dc);
    Entry entry(int symbol, int length, bool dc) const;
  };
  struct Bits;

  static boolean decode(j_decompress_ptr decoder, JBLOCKROW* blocks);
  template <bool kKept>
  bool decode_blocks(JBLOCKROW* blocks);
  // To the beginning of the MCU, which is not before the one that comes next.
  bool go_to(int64_t mcu);
  bool restart(int64_t interval);

  // What a later libjpeg-turbo of the same ABI may have in jpeg_entropy_decoder behind what we know of it.
  const void* more_[4] = {};
  Table dc_[NUM_HUFF_TBLS], ac_[NUM_HUFF_TBLS];
  const uint8_t *next_ = nullptr, *end_ = nullptr;
  uint64_t bits_ = 0;
  int count_ = 0, missing_ = 0;
  // MCUs, counted from the scan's first one: the one that libjpeg asks for next, the one whose codes begin at `next_`, and the
  // first one behind its interval.
  int64_t asked_ = 0, mcu_ = 0, interval_end_ = 0;
  int64_t interval_ = 0, interval_length_ = 0;  // its number; MCUs in each
  int64_t column_ = 0, columns_ = 0;            // of `asked_`; in a row
  int64_t first_wanted_ = 0, end_wanted_ = 0;   // columns
  struct Block {
    const Table *dc, *ac;
    int part;  // of the picture's, whose last_dc_ it goes on with
  };
  Block blocks_[D_MAX_BLOCKS_IN_MCU];
  int block_count_ = 0;
  int last_dc_[MAX_COMPS_IN_SCAN] = {};
  bool irregular_ = false;
};

#else

struct HuffmanDecoder {
  void install(jpeg_decompress_struct&, int64_t, int64_t) {}
  bool take_irregular() { return false; }
};

#endif

}  // namespace lth
