#include "core/safetensors.h"

#include <algorithm>
#include <limits>
#include <set>

#include "core/error.h"

namespace lth {
namespace {

constexpr uint64_t kLongestHeader = 100 << 20;  // the format's own limit

uint64_t size_of(const std::string& dtype) {
  static const std::map<std::string, uint64_t> kSizes = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                                         {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};
  const auto found = kSizes.find(dtype);
  return found == kSizes.end() ? 0 : found->second;
}

// A reader of the JSON that a header may hold: an object of objects of strings and arrays of whole numbers. Depth is
// fixed by the grammar, so nesting cannot exhaust the stack.
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view json) : json_(json) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw Error("corrupt-file", "header: " + what + " at byte " + std::to_string(8 + at_));
  }
  void expect(char c) {
    space();
    if (at_ >= json_.size() || json_[at_] != c) fail(std::string("expected '") + c + "'");
    ++at_;
  }
  bool accept(char c) {
    space();
    if (at_ >= json_.size() || json_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string string() {
    expect('"');
    std::string out;
    for (;;) {
      if (at_ >= json_.size()) fail("string without end");
      const char c = json_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
      if (c != '\\') {
        out += c;
        continue;
      }
      if (at_ >= json_.size()) fail("string without end");
      const char e = json_[at_++];
      static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
      if (const size_t i = kFrom.find(e); i != std::string_view::npos) {
        out += kTo[i];
      } else if (e == 'u') {
        utf8(code_point(), out);
      } else {
        fail("unknown escape");
      }
    }
  }
  uint64_t number() {
    space();
    const size_t start = at_;
    uint64_t n = 0;
    while (at_ < json_.size() && json_[at_] >= '0' && json_[at_] <= '9') {
      const auto digit = static_cast<uint64_t>(json_[at_] - '0');
      if (n > (std::numeric_limits<int64_t>::max() - digit) / 10) fail("number too large");
      n = n * 10 + digit;
      ++at_;
    }
    if (at_ == start) fail("expected a whole number");
    if (at_ - start > 1 && json_[start] == '0') fail("number with a leading zero");
    return n;
  }
  std::vector<uint64_t> numbers() {
    std::vector<uint64_t> out;
    expect('[');
    if (accept(']')) return out;
    do {
      out.push_back(number());
    } while (accept(','));
    expect(']');
    return out;
  }
  // each(key) reads the value.
  template <typename F>
  void object(F&& each) {
    expect('{');
    if (accept('}')) return;
    std::set<std::string> seen;
    do {
      std::string key = string();
      expect(':');
      if (!seen.insert(key).second) fail("\"" + key + "\" stands twice");
      each(key);
    } while (accept(','));
    expect('}');
  }
  void end() {
    space();
    if (at_ != json_.size()) fail("bytes behind the header's end");
  }

 private:
  void space() {
    while (at_ < json_.size() && (json_[at_] == ' ' || json_[at_] == '\n' || json_[at_] == '\t' || json_[at_] == '\r')) ++at_;
  }
  uint32_t hex4() {
    uint32_t n = 0;
    for (int i = 0; i < 4; ++i) {
      if (at_ >= json_.size()) fail("string without end");
      const char c = json_[at_++];
      const char lower = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') {
        n = n * 16 + static_cast<uint32_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        n = n * 16 + static_cast<uint32_t>(lower - 'a' + 10);
      } else {
        fail("bad \\u escape");
      }
    }
    return n;
  }
  uint32_t code_point() {
    const uint32_t high = hex4();
    if (high < 0xD800 || high > 0xDFFF) return high;
    if (high > 0xDBFF || at_ + 1 >= json_.size() || json_[at_] != '\\' || json_[at_ + 1] != 'u') fail("lone surrogate");
    at_ += 2;
    const uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail("lone surrogate");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }
  static void utf8(uint32_t c, std::string& out) {
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c < 0x800) {
      out += static_cast<char>(0xC0 | c >> 6);
      out += static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      out += static_cast<char>(0xE0 | c >> 12);
      out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
      out += static_cast<char>(0x80 | (c & 0x3F));
    } else {
      out += static_cast<char>(0xF0 | c >> 18);
      out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
      out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
      out += static_cast<char>(0x80 | (c & 0x3F));
    }
  }

  std::string_view json_;
  size_t at_ = 0;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      static constexpr char kHex[] = "0123456789abcdef";
      out += "\\u00";
      out += kHex[c >> 4];
      out += kHex[c & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

TensorIn read_entry(HeaderReader& in, const std::string& name) {
  TensorIn tensor;
  bool has_dtype = false, has_shape = false;
  std::vector<uint64_t> range;
  in.object([&](const std::string& key) {
    if (key == "dtype") {
      tensor.dtype = in.string();
      has_dtype = true;
    } else if (key == "shape") {
      for (const uint64_t d : in.numbers()) tensor.shape.push_back(static_cast<int64_t>(d));
      has_shape = true;
    } else if (key == "data_offsets") {
      range = in.numbers();
    } else {
      in.fail("unknown key \"" + key + "\" of tensor " + name);
    }
  });
  if (!has_dtype || !has_shape || range.size() != 2) in.fail("tensor " + name + " lacks dtype, shape or data_offsets");
  uint64_t bytes = size_of(tensor.dtype);
  if (bytes == 0) in.fail("tensor " + name + " has the unknown dtype " + tensor.dtype);
  for (const int64_t d : tensor.shape) {
    if (d != 0 && bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / d)) {
      in.fail("tensor " + name + " is too large");
    }
    bytes *= static_cast<uint64_t>(d);
  }
  if (range[1] < range[0] || range[1] - range[0] != bytes) {
    in.fail("tensor " + name + " wants " + std::to_string(bytes) + " bytes, its data_offsets say otherwise");
  }
  tensor.first = range[0];
  tensor.bytes = bytes;
  return tensor;
}

// What is written can be read: no name stands twice, and the bytes are as many as the shape says.
void check_tensors(const std::string& path, const std::vector<TensorOut>& tensors) {
  std::set<std::string> names = {"__metadata__"};
  for (const TensorOut& t : tensors) {
    uint64_t bytes = size_of(t.dtype);
    for (const int64_t d : t.shape) bytes *= static_cast<uint64_t>(d);
    if (bytes != t.bytes.size() || !names.insert(t.name).second) {
      throw Error("invalid-argument", "[safetensors] " + path + ": tensor " + t.name +
                                          (bytes != t.bytes.size() ? " has " + std::to_string(t.bytes.size()) +
                                                                         " bytes, its shape says " + std::to_string(bytes)
                                                                   : " stands twice, or has a name of the format's own"));
    }
  }
}

}  // namespace

void parse_safetensors_header(std::string_view json, uint64_t body, std::map<std::string, TensorIn>& tensors,
                              Metadata& metadata) {
  HeaderReader in(json);
  in.object([&](const std::string& name) {
    if (name == "__metadata__") {
      in.object([&](const std::string& key) { metadata[key] = in.string(); });
    } else {
      tensors[name] = read_entry(in, name);
    }
  });
  in.end();
  // The tensors tile the body: no hole, no overlap.
  std::vector<const TensorIn*> order;
  for (const auto& [name, tensor] : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorIn* a, const TensorIn* b) {
    return a->first != b->first ? a->first < b->first : a->bytes < b->bytes;
  });
  uint64_t at = 0;
  for (const TensorIn* tensor : order) {
    if (tensor->first != at) in.fail("tensors overlap or leave a hole at data byte " + std::to_string(at));
    at += tensor->bytes;
    if (at > body) break;
  }
  if (at != body) {
    in.fail("the tensors take " + std::to_string(at) + " bytes or more, the file holds " + std::to_string(body));
  }
}

void write_safetensors(const std::string& path, const std::vector<TensorOut>& tensors, const Metadata& metadata) {
  check_tensors(path, tensors);
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) header += (header.back() == '{' ? "" : ",") + quoted(key) + ":" + quoted(value);
    header += "}";
  }
  uint64_t at = 0;
  for (const TensorOut& t : tensors) {
    header += (header.size() > 1 ? "," : "") + quoted(t.name) + ":{\"dtype\":" + quoted(t.dtype) + ",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) header += (i ? "," : "") + std::to_string(t.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + t.bytes.size()) + "]}";
    at += t.bytes.size();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // tensors start 8-byte aligned
  const uint64_t length = header.size();
  std::byte prefix[8];
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<std::byte>(length >> (8 * i));
  std::vector<std::span<const std::byte>> parts = {prefix, std::as_bytes(std::span(header))};
  for (const TensorOut& t : tensors) parts.push_back(t.bytes);
  write_atomically(path, parts);
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), file_(path) {
  try {
    if (file_.size() < 8) throw Error("corrupt-file", "has " + std::to_string(file_.size()) + " bytes, a header needs 8");
    std::byte prefix[8];
    file_.read(0, prefix);
    uint64_t length = 0;
    for (int i = 0; i < 8; ++i) length |= static_cast<uint64_t>(prefix[i]) << (8 * i);
    if (length > kLongestHeader || length > file_.size() - 8) {
      throw Error("corrupt-file", "the header claims " + std::to_string(length) + " bytes of a file of " +
                                      std::to_string(file_.size()));
    }
    std::string header(length, '\0');
    file_.read(8, std::as_writable_bytes(std::span(header)));
    parse_safetensors_header(header, file_.size() - 8 - length, tensors_, metadata_);
    for (auto& [name, tensor] : tensors_) tensor.first += 8 + length;
  } catch (const Error& error) {
    if (error.code() != "corrupt-file") throw;
    throw Error("corrupt-file", "[safetensors] " + path + ": " + error.what());
  }
}

}  // namespace lth
