#include "data/pickle.h"

#include <algorithm>
#include <cstdio>
#include <unordered_map>

#include "core/error.h"

namespace lth {
namespace {

using Value = PickleValue;

// The largest file, CIFAR-100's training part, has 150,000 strings and numbers.
constexpr size_t kMostValues = size_t{1} << 20;

// Opcodes by the names of Python's pickletools.
enum Opcode : uint8_t {
  kProto = 0x80,
  kStop = '.',
  kMark = '(',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kAppend = 'a',
  kAppends = 'e',
  kSetItem = 's',
  kSetItems = 'u',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kShortBinString = 'U',
  kBinString = 'T',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kNone = 'N',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kGlobal = 'c',
  kReduce = 'R',
  kBuild = 'b',
};

constexpr std::string_view kReconstruct = "numpy.core.multiarray _reconstruct", kNdarray = "numpy ndarray",
                           kNumpyDtype = "numpy dtype";

std::string hex(uint8_t byte) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", byte);
  return text;
}

class Unpickler {
 public:
  Unpickler(std::span<const uint8_t> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Pickle run() {
    if (take(1)[0] != static_cast<char>(kProto) || take(1)[0] != 2) throw corrupt("is no pickle of protocol 2");
    while (true) {
      start_ = at_;
      const auto opcode = static_cast<uint8_t>(take(1)[0]);
      if (opcode == kStop) break;
      step(opcode);
    }
    if (stack_.size() != 1 || !marks_.empty()) throw corrupt("ends with other than one value");
    if (at_ != bytes_.size()) throw corrupt("has bytes behind its end");
    out_.top = stack_[0];
    return std::move(out_);
  }

 private:
  Error corrupt(const std::string& what) const {
    return Error("corrupt-file", "[cifar] " + name_ + ": byte " + std::to_string(start_) + ": " + what);
  }

  std::string_view take(size_t count) {
    if (count > bytes_.size() - at_) throw corrupt("truncated");
    const std::string_view view(reinterpret_cast<const char*>(bytes_.data()) + at_, count);
    at_ += count;
    return view;
  }

  uint64_t little_endian(size_t count) {
    uint64_t n = 0;
    const std::string_view from = take(count);
    for (size_t i = 0; i < count; ++i) n |= static_cast<uint64_t>(static_cast<uint8_t>(from[i])) << (8 * i);
    return n;
  }

  std::string_view line() {
    const auto rest = bytes_.subspan(at_);
    // No name that is accepted is longer.
    const auto most = rest.first(std::min<size_t>(rest.size(), 100));
    const auto end = std::find(most.begin(), most.end(), '\n');
    if (end == most.end()) throw corrupt("a name without an end");
    const std::string_view text = take(static_cast<size_t>(end - most.begin()));
    take(1);
    return text;
  }

  void push(Value value) {
    if (out_.values.size() == kMostValues) throw corrupt("more than " + std::to_string(kMostValues) + " values");
    out_.values.push_back(std::move(value));
    stack_.push_back(static_cast<uint32_t>(out_.values.size() - 1));
  }
  void push_int(int64_t number) { push({.kind = Value::kInt, .number = number, .bytes = {}, .items = {}, .shape = {}}); }
  void push_of(Value::Kind kind, int64_t number = 0) {
    push({.kind = kind, .number = number, .bytes = {}, .items = {}, .shape = {}});
  }
  void push_string(std::string_view text) {
    push({.kind = Value::kString, .number = 0, .bytes = text, .items = {}, .shape = {}});
  }

  // What stands on the stack above the last mark, or at its bottom.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  uint32_t pop() {
    if (stack_.size() <= floor()) throw corrupt("an opcode that wants more values than there are");
    const uint32_t index = stack_.back();
    stack_.pop_back();
    return index;
  }
  std::vector<uint32_t> pop_to_mark() {
    if (marks_.empty()) throw corrupt("an opcode that wants a mark");
    const size_t from = marks_.back();
    marks_.pop_back();
    std::vector<uint32_t> items(stack_.begin() + static_cast<int64_t>(from), stack_.end());
    stack_.resize(from);
    return items;
  }
  Value& top(Value::Kind kind, const char* wanted) {
    if (stack_.size() <= floor() || out_.values[stack_.back()].kind != kind) {
      throw corrupt(std::string("an opcode that wants ") + wanted);
    }
    return out_.values[stack_.back()];
  }
  const Value& value(uint32_t index) const { return out_.values[index]; }

  void tuple(size_t count) {
    std::vector<uint32_t> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    tuple(std::move(items));
  }
  void tuple(std::vector<uint32_t> items) {
    push({.kind = Value::kTuple, .number = 0, .bytes = {}, .items = std::move(items), .shape = {}});
  }

  void append(const std::vector<uint32_t>& items) {
    Value& list = top(Value::kList, "a list");
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<uint32_t>& items) {
    Value& dict = top(Value::kDict, "a dict");
    if (items.size() % 2 != 0) throw corrupt("a key without a value");
    for (size_t i = 0; i < items.size(); i += 2) {
      if (value(items[i]).kind != Value::kString) throw corrupt("a key that is no string");
    }
    dict.items.insert(dict.items.end(), items.begin(), items.end());
  }

  void put(uint64_t index) {
    if (stack_.size() <= floor()) throw corrupt("an opcode that wants more values than there are");
    if (index > kMostValues) throw corrupt("place " + std::to_string(index) + " of the memo");
    memo_[static_cast<uint32_t>(index)] = stack_.back();
  }
  void get(uint64_t index) {
    const auto found = memo_.find(static_cast<uint32_t>(index));
    if (found == memo_.end()) throw corrupt("an empty place of the memo");
    // Each costs memory without a value of its own.
    if (stack_.size() == kMostValues) throw corrupt("more than " + std::to_string(kMostValues) + " values");
    stack_.push_back(found->second);
  }

  void global() {
    const size_t from = at_;
    const std::string_view module = line(), member = line();
    const std::string both = std::string(module) + " " + std::string(member);
    for (const std::string_view known : {kReconstruct, kNdarray, kNumpyDtype}) {
      if (both != known) continue;
      push({.kind = Value::kGlobal, .number = 0, .bytes = known, .items = {}, .shape = {}});
      return;
    }
    // What it is called is the file's own: shown only where it is plain text.
    const bool plain = std::all_of(both.begin(), both.end(), [](char c) { return c >= ' ' && c <= '~'; });
    start_ = from - 1;
    throw corrupt("names " + (plain ? both : std::string("a global")) + ", which no CIFAR file has");
  }

  bool is_global(uint32_t index, std::string_view name) const {
    return value(index).kind == Value::kGlobal && value(index).bytes == name;
  }
  bool is_int(uint32_t index, int64_t number) const {
    return value(index).kind == Value::kInt && value(index).number == number;
  }
  bool is_string(uint32_t index, std::string_view text) const {
    return value(index).kind == Value::kString && value(index).bytes == text;
  }

  // numpy.dtype('u1', 0, 1) and numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), 'b'), as numpy itself pickles.
  void reduce() {
    const uint32_t arguments = pop(), callee = pop();
    const Value& a = value(arguments);
    if (a.kind == Value::kTuple && a.items.size() == 3) {
      if (is_global(callee, kNumpyDtype) && is_string(a.items[0], "u1")) return push_of(Value::kDtype);
      if (is_global(callee, kReconstruct) && is_global(a.items[0], kNdarray)) return push_of(Value::kArray);
    }
    throw corrupt("an object that is no numpy array of unsigned bytes");
  }

  // State of an array: (1, shape, dtype, in Fortran's order, bytes). That of a dtype of one byte says nothing new.
  void build() {
    const uint32_t state = pop();
    const Value& s = value(state);
    if (s.kind == Value::kTuple && stack_.size() > floor()) {
      Value& object = out_.values[stack_.back()];
      if (object.kind == Value::kDtype) return;
      if (object.kind == Value::kArray && object.shape.empty() && s.items.size() == 5) return build_array(object, s);
    }
    throw corrupt("a state of no numpy array of unsigned bytes");
  }
  void build_array(Value& array, const Value& state) {
    const Value &shape = value(state.items[1]), &order = value(state.items[3]), &data = value(state.items[4]);
    if (!is_int(state.items[0], 1) || shape.kind != Value::kTuple || value(state.items[2]).kind != Value::kDtype ||
        order.kind != Value::kBool || data.kind != Value::kString || shape.items.size() != 2) {
      throw corrupt("a state of no matrix of unsigned bytes");
    }
    uint64_t size = 1;
    for (const uint32_t item : shape.items) {
      const Value& extent = value(item);
      if (extent.kind != Value::kInt || extent.number < 1 || extent.number > INT32_MAX) {
        throw corrupt("a matrix with an extent that is none");
      }
      size *= static_cast<uint64_t>(extent.number);
    }
    if (size != data.bytes.size()) {
      throw corrupt("a matrix of " + std::to_string(size) + " elements holds " + std::to_string(data.bytes.size()) +
                    " bytes");
    }
    for (const uint32_t item : shape.items) array.shape.push_back(value(item).number);
    array.number = order.number;
    array.bytes = data.bytes;
  }

  void long1() {
    const auto count = static_cast<size_t>(little_endian(1));
    if (count > 8) throw corrupt("a number of " + std::to_string(count) + " bytes");
    uint64_t bits = little_endian(count);
    const bool negative = count > 0 && (bits >> (8 * count - 1) & 1) != 0;
    if (negative && count < 8) bits |= ~uint64_t{0} << (8 * count);
    push_int(static_cast<int64_t>(bits));
  }

  void step(uint8_t opcode) {
    switch (opcode) {
      case kMark: return mark();
      case kEmptyDict: return push_of(Value::kDict);
      case kEmptyList: return push_of(Value::kList);
      case kEmptyTuple: return push_of(Value::kTuple);
      case kTuple: return tuple(pop_to_mark());
      case kTuple1: return tuple(size_t{1});
      case kTuple2: return tuple(size_t{2});
      case kTuple3: return tuple(size_t{3});
      case kAppend: return append({pop()});
      case kAppends: return append(pop_to_mark());
      case kSetItem: {
        const uint32_t item = pop(), key = pop();
        return set_items({key, item});
      }
      case kSetItems: return set_items(pop_to_mark());
      case kBinPut: return put(little_endian(1));
      case kLongBinPut: return put(little_endian(4));
      case kBinGet: return get(little_endian(1));
      case kLongBinGet: return get(little_endian(4));
      case kShortBinString: return push_string(take(little_endian(1)));
      case kBinString: return push_string(take(little_endian(4)));
      case kBinInt: return push_int(static_cast<int32_t>(little_endian(4)));
      case kBinInt1: return push_int(static_cast<int64_t>(little_endian(1)));
      case kBinInt2: return push_int(static_cast<int64_t>(little_endian(2)));
      case kLong1: return long1();
      case kNone: return push_of(Value::kNone);
      case kNewTrue: return push_of(Value::kBool, 1);
      case kNewFalse: return push_of(Value::kBool, 0);
      case kGlobal: return global();
      case kReduce: return reduce();
      case kBuild: return build();
      default: throw corrupt("opcode " + hex(opcode) + ", which no CIFAR file has");
    }
  }

  void mark() {
    if (marks_.size() == 100) throw corrupt("nested without end");
    marks_.push_back(stack_.size());
  }

  std::span<const uint8_t> bytes_;
  const std::string& name_;
  size_t at_ = 0, start_ = 0;  // start_: of the opcode at hand, which errors name
  Pickle out_;
  std::vector<uint32_t> stack_;  // of values
  std::vector<size_t> marks_;    // places of the stack
  std::unordered_map<uint32_t, uint32_t> memo_;
};

}  // namespace

const PickleValue* Pickle::find(std::string_view key, const std::string& name) const {
  const PickleValue& dict = values[top];
  if (dict.kind != PickleValue::kDict) throw Error("corrupt-file", "[cifar] " + name + ": holds no dict");
  const PickleValue* found = nullptr;
  for (size_t i = 0; i < dict.items.size(); i += 2) {
    if (values[dict.items[i]].bytes != key) continue;
    if (found) throw Error("corrupt-file", "[cifar] " + name + ": holds " + std::string(key) + " twice");
    found = &values[dict.items[i + 1]];
  }
  return found;
}

Pickle parse_pickle(std::span<const uint8_t> bytes, const std::string& name) { return Unpickler(bytes, name).run(); }

}  // namespace lth
