// Pickles as Python 2 wrote those of CIFAR: a dict of lists of small numbers and of a numpy array of bytes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lth::test {

class Pickler {
 public:
  Pickler() { put("\x80\x02}q\x01("); }

  Pickler& key(const std::string& name) { return string(name); }
  Pickler& list(const std::vector<int>& numbers) {
    put("](");
    for (const int n : numbers) integer(n);
    return put("e");
  }
  Pickler& array(int64_t rows, int64_t columns, bool fortran, const std::vector<uint8_t>& elements) {
    put("cnumpy.core.multiarray\n_reconstruct\nq\x07" "cnumpy\nndarray\n");
    bytes_.insert(bytes_.end(), {'K', 0, 0x85});
    string("b").put("\x87R(K\x01");
    integer(rows).integer(columns).put("\x86" "cnumpy\ndtype\n");
    string("u1");
    bytes_.insert(bytes_.end(), {'K', 0, 'K', 1, 0x87, 'R', '(', 'K', 3});
    string("|").put("NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK");
    bytes_.insert(bytes_.end(), {0, 't', 'b', static_cast<uint8_t>(fortran ? 0x88 : 0x89)});
    return string({elements.begin(), elements.end()}).put("tb");
  }
  std::vector<uint8_t> end() { return put("u.").bytes_; }

 private:
  Pickler& put(const std::string& text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  Pickler& number(uint64_t n, int count) {
    for (int i = 0; i < count; ++i) bytes_.push_back(static_cast<uint8_t>(n >> (8 * i)));
    return *this;
  }
  Pickler& integer(int64_t n) {
    if (n >= 0 && n < 256) return put("K").number(static_cast<uint64_t>(n), 1);
    if (n >= 0 && n < 65536) return put("M").number(static_cast<uint64_t>(n), 2);
    return put("J").number(static_cast<uint64_t>(n), 4);
  }
  Pickler& string(const std::string& text) {
    if (text.size() < 256) return put("U").number(text.size(), 1).put(text);
    return put("T").number(text.size(), 4).put(text);
  }

  std::vector<uint8_t> bytes_;
};

}  // namespace lth::test
