#include "jpeg/huffman.h"

#if LTH_JPEG_MODULES
#include <algorithm>
#include <bit>
#include <cstring>

namespace lth {
namespace {

// Behind its end are those that a run past the end leads to.
constexpr uint8_t kZigzag[64 + 15] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
    6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31,
    39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

// ITU T.81, F.2.2.1: what is left of `bits` after a shift, a number of so many bits, of which a first one of 0 makes a
// negative one. The shift is below 64.
int64_t number(uint64_t bits, int shift) {
  const auto negative = static_cast<uint64_t>(static_cast<int64_t>(~bits) >> 63);  // all ones, or 0
  return static_cast<int64_t>((((bits ^ negative) >> shift) ^ negative) - negative);
}

// The first marker in [at, end): its 0xff, which a byte other than 0 follows. Null where there is none.
const uint8_t* next_marker(const uint8_t* at, const uint8_t* end) {
  while ((at = static_cast<const uint8_t*>(std::memchr(at, 0xff, static_cast<size_t>(end - at)))) && end - at >= 2) {
    if (at[1] != 0) return at;
    at += 2;
  }
  return nullptr;
}

constexpr int all_bits(uint32_t entry) { return static_cast<int>(entry & 255); }
constexpr int code_bits(uint32_t entry) { return static_cast<int>(entry >> 8 & 255); }
constexpr int number_shift(uint32_t entry) { return static_cast<int>(entry >> 16 & 255); }
constexpr int run(uint32_t entry) { return static_cast<int>(entry >> 24); }

}  // namespace

void HuffmanDecoder::Table::make(const JHUFF_TBL& from, bool dc) {
  if (made && std::memcmp(from.bits, made_of.bits, sizeof from.bits) == 0 &&
      std::memcmp(from.huffval, made_of.huffval, sizeof from.huffval) == 0) {
    return;
  }
  made = true;
  made_of = from;
  std::memcpy(symbols, from.huffval, sizeof symbols);
  std::memset(entries, 0, sizeof entries);
  int32_t code = 0;
  int first = 0;
  // jpeg_start_decompress has looked that codes fit their lengths.
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    place[length] = first - code;
    for (int i = 0; i < from.bits[length]; ++i, ++code, ++first) {
      if (length <= kPeek) std::fill_n(entries + (code << (kPeek - length)), 1 << (kPeek - length), entry(symbols[first], length, dc));
    }
    end[length] = code;
  }
}

HuffmanDecoder::Entry HuffmanDecoder::Table::entry(int symbol, int length, bool dc) const {
  const int size = dc ? symbol : symbol & 15;
  return static_cast<Entry>((length + size) | length << 8 | (64 - size) << 16 | (dc ? 0 : symbol >> 4) << 24);
}

// The data's bits, the next one on top. Bytes 0 behind 0xff are left out; behind the last byte come zeros, which are counted.
struct HuffmanDecoder::Bits {
  uint64_t bits;
  int count, missing;
  const uint8_t* next;
  const uint8_t* const end;

  // At least 56 of them, enough for a code and its value.
  void fill() {
    if (end - next >= 8) {
      uint64_t eight;
      std::memcpy(&eight, next, sizeof eight);
      // Is none of them 0xff?
      if (const uint64_t inverse = ~eight; ((inverse - 0x0101010101010101u) & ~inverse & 0x8080808080808080u) == 0) {
        if constexpr (std::endian::native == std::endian::little) eight = __builtin_bswap64(eight);
        bits |= eight >> count;
        next += (63 - count) >> 3;
        count |= 56;
        return;
      }
    }
    for (; count <= 56; count += 8) {
      if (next < end && (*next != 0xff || (end - next >= 2 && next[1] == 0))) {
        bits |= uint64_t{*next} << (56 - count);
        next += *next == 0xff ? 2 : 1;
      } else {
        missing += 8;
      }
    }
  }
  // What the next code says, of which `after` begins with the number; goes on behind it. False where there is no such code.
  bool decode(const Table& table, bool dc, Entry& entry, uint64_t& after) {
    if (count < 32) fill();
    entry = table.entries[bits >> (64 - kPeek)];
    if (all_bits(entry) == 0) [[unlikely]] {
      int32_t code = 0;
      int length = kPeek + 1;
      for (; length <= 16; ++length) {
        code = static_cast<int32_t>(bits >> (64 - length));
        if (code < table.end[length]) break;
      }
      if (length > 16) return false;
      entry = table.entry(table.symbols[(code + table.place[length]) & 255], length, dc);
    }
    after = bits << (code_bits(entry) & 63);
    bits <<= all_bits(entry) & 63;
    count -= all_bits(entry);
    return true;
  }
};

template <bool kKept>
bool HuffmanDecoder::decode_blocks(JBLOCKROW* blocks) {
  Bits bits{bits_, count_, missing_, next_, end_};
  for (int i = 0; i < block_count_; ++i) {
    const auto [dc, ac, part] = blocks_[i];
    Entry entry;
    uint64_t after;
    if (!bits.decode(*dc, true, entry, after)) return false;
    int& last_dc = last_dc_[part];
    if (number_shift(entry) < 64) last_dc += static_cast<int>(number(after, number_shift(entry)));
    if (last_dc != static_cast<JCOEF>(last_dc)) return false;
    JCOEF* const block = kKept ? *blocks[i] : nullptr;
    if constexpr (kKept) block[0] = static_cast<JCOEF>(last_dc);
    int k = 1;
    for (; k < 64; ++k) {
      if (!bits.decode(*ac, false, entry, after)) return false;
      k += run(entry);
      if (number_shift(entry) == 64) {
        if (run(entry) != 15) break;
      } else if constexpr (kKept) {
        block[kZigzag[k]] = static_cast<JCOEF>(number(after, number_shift(entry) & 63));
      }
    }
    if (k > 64) return false;
  }
  bits_ = bits.bits;
  count_ = bits.count;
  missing_ = bits.missing;
  next_ = bits.next;
  return count_ >= missing_;
}

// Markers must be those that the intervals want, one behind the other: then libjpeg's own decoder finds each interval where this
// one does, whatever the data before it holds. Anything else is its business, and data that is left over before a marker where
// all of an interval was decoded, which it warns of.
bool HuffmanDecoder::restart(int64_t interval) {
  const bool all_decoded = mcu_ == interval_end_;
  if (all_decoded && (count_ - missing_ >= 8 || next_marker(next_, end_) != next_)) return false;
  for (; interval_ < interval; ++interval_) {
    const uint8_t* const marker = next_marker(next_, end_);
    if (!marker || marker[1] != JPEG_RST0 + interval_ % 8) return false;
    next_ = marker + 2;
  }
  bits_ = 0;
  count_ = missing_ = 0;
  std::fill_n(last_dc_, MAX_COMPS_IN_SCAN, 0);
  mcu_ = interval * interval_length_;
  interval_end_ = mcu_ + interval_length_;
  return true;
}

bool HuffmanDecoder::go_to(int64_t mcu) {
  if (mcu >= interval_end_ && !restart(mcu / interval_length_)) return false;
  for (; mcu_ < mcu; ++mcu_) {
    if (!decode_blocks<false>(nullptr)) return false;
  }
  return true;
}

boolean HuffmanDecoder::decode(j_decompress_ptr decoder, JBLOCKROW* blocks) {
  auto& self = *static_cast<HuffmanDecoder*>(decoder->entropy);
  const int64_t mcu = self.asked_++;
  const bool wanted = blocks && self.column_ >= self.first_wanted_ && self.column_ < self.end_wanted_;
  if (++self.column_ == self.columns_) self.column_ = 0;
  if (!wanted) return TRUE;
  if (self.go_to(mcu) && self.decode_blocks<true>(blocks)) {
    ++self.mcu_;
    return TRUE;
  }
  self.irregular_ = true;
  decoder->err->error_exit(reinterpret_cast<j_common_ptr>(decoder));
  return FALSE;
}

void HuffmanDecoder::install(jpeg_decompress_struct& decoder, int64_t left, int64_t width) {
  const bool baseline = !decoder.progressive_mode && !decoder.arith_code && decoder.data_precision == 8 && decoder.Ss == 0 &&
                        decoder.Se == DCTSIZE2 - 1 && decoder.Ah == 0 && decoder.Al == 0;
  if (!baseline || jpeg_has_multiple_scans(&decoder)) return;
  for (int i = 0; i < decoder.comps_in_scan; ++i) {
    const jpeg_component_info& component = *decoder.cur_comp_info[i];
    dc_[component.dc_tbl_no].make(*decoder.dc_huff_tbl_ptrs[component.dc_tbl_no], true);
    ac_[component.ac_tbl_no].make(*decoder.ac_huff_tbl_ptrs[component.ac_tbl_no], false);
    last_dc_[i] = 0;
  }
  block_count_ = decoder.blocks_in_MCU;
  for (int i = 0; i < block_count_; ++i) {
    const int part = decoder.MCU_membership[i];
    const jpeg_component_info& component = *decoder.cur_comp_info[part];
    blocks_[i] = {&dc_[component.dc_tbl_no], &ac_[component.ac_tbl_no], part};
  }
#if JPEG_LIB_VERSION >= 70
  const int64_t block = decoder.min_DCT_h_scaled_size;
#else
  const int64_t block = decoder.min_DCT_scaled_size;
#endif
  const int64_t pixels = decoder.comps_in_scan == 1 ? block : block * decoder.max_h_samp_factor;  // of an MCU's row
  asked_ = mcu_ = interval_ = column_ = 0;
  columns_ = decoder.MCUs_per_row;
  interval_length_ = decoder.restart_interval != 0 ? decoder.restart_interval : columns_ * decoder.MCU_rows_in_scan;
  interval_end_ = interval_length_;
  first_wanted_ = left / pixels;
  end_wanted_ = (left + width + pixels - 1) / pixels;
  next_ = decoder.src->next_input_byte;
  end_ = next_ + decoder.src->bytes_in_buffer;
  bits_ = 0;
  count_ = missing_ = 0;
  static_cast<jpeg_entropy_decoder&>(*this) = *decoder.entropy;
  decode_mcu = decode;
  decoder.entropy = this;
}

}  // namespace lth
#endif
