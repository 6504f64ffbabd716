#include "data/shard_file.h"

#include <bit>
#include <cstring>
#include <optional>

namespace lth {
namespace {

static_assert(std::endian::native == std::endian::little, "Arrow files are little-endian");

// Numbers of the format: File.fbs, Message.fbs, Schema.fbs.
constexpr uint64_t kVersion5 = 4, kSchema = 1, kRecordBatch = 3, kInt = 2, kBinary = 4, kUtf8 = 5;

// A flatbuffer, written front to back: a table first, then what its offsets lead to. Every field has 8 bytes, so that all
// are aligned.
class FlatBuffer {
 public:
  using Field = std::optional<uint64_t>;  // of a table; what is an offset is 0 until `lead`
  static constexpr Field kNone{};

  FlatBuffer() { put<uint32_t>(0); }

  size_t table(const std::vector<Field>& fields) {
    align(2, 0);
    const size_t description = bytes_.size();
    put(static_cast<uint16_t>(4 + 2 * fields.size()));
    put(static_cast<uint16_t>(4 + 8 * fields.size()));
    for (size_t i = 0; i < fields.size(); ++i) put(static_cast<uint16_t>(fields[i] ? 4 + 8 * i : 0));
    align(8, 4);
    const size_t at = bytes_.size();
    put(static_cast<int32_t>(at - description));
    for (const Field& field : fields) put(field.value_or(0));
    return at;
  }
  static size_t field(size_t table, size_t i) { return table + 4 + 8 * i; }

  size_t text(std::string_view value) {
    align(4, 0);
    const size_t at = bytes_.size();
    put(static_cast<uint32_t>(value.size()));
    raw(value.data(), value.size());
    put<uint8_t>(0);
    return at;
  }
  // Offsets, 0 until `lead` to element(vector, i).
  size_t offsets(size_t count) {
    align(4, 0);
    const size_t at = bytes_.size();
    put(static_cast<uint32_t>(count));
    for (size_t i = 0; i < count; ++i) put<uint32_t>(0);
    return at;
  }
  static size_t element(size_t vector, size_t i) { return vector + 4 + 4 * i; }
  // Structs of `words` numbers of 8 bytes each.
  size_t structs(const std::vector<uint64_t>& numbers, size_t words) {
    align(8, 4);
    const size_t at = bytes_.size();
    put(static_cast<uint32_t>(numbers.size() / words));
    for (const uint64_t number : numbers) put(number);
    return at;
  }

  // The offset at `from` leads to `to`, which is behind it.
  void lead(size_t from, size_t to) {
    const auto offset = static_cast<uint32_t>(to - from);
    std::memcpy(bytes_.data() + from, &offset, sizeof offset);
  }
  void root(size_t table) { lead(0, table); }

  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  template <typename T>
  void put(T value) {
    raw(&value, sizeof value);
  }
  void raw(const void* data, size_t n) {
    const auto* first = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), first, first + n);
  }
  void align(size_t to, size_t remainder) {
    while (bytes_.size() % to != remainder) bytes_.push_back(std::byte{0});
  }

  std::vector<std::byte> bytes_;
};

size_t schema(FlatBuffer& flat, const std::vector<std::pair<std::string, std::string>>& metadata) {
  struct Column {
    const char* name;
    uint64_t type;
  };
  constexpr Column kColumns[] = {{"image", kBinary}, {"label", kInt}, {"name", kUtf8}};
  // endianness, fields, metadata
  const size_t table = flat.table({0, 0, 0});
  const size_t fields = flat.offsets(std::size(kColumns));
  flat.lead(FlatBuffer::field(table, 1), fields);
  for (size_t i = 0; i < std::size(kColumns); ++i) {
    // name, nullable, type's kind, type, dictionary, children
    const size_t field = flat.table({0, 0, kColumns[i].type, 0, FlatBuffer::kNone, 0});
    flat.lead(FlatBuffer::element(fields, i), field);
    flat.lead(FlatBuffer::field(field, 0), flat.text(kColumns[i].name));
    // of an Int: bits, signed
    flat.lead(FlatBuffer::field(field, 3),
              kColumns[i].type == kInt ? flat.table({32, 1}) : flat.table({}));
    flat.lead(FlatBuffer::field(field, 5), flat.offsets(0));
  }
  const size_t pairs = flat.offsets(metadata.size());
  flat.lead(FlatBuffer::field(table, 2), pairs);
  for (size_t i = 0; i < metadata.size(); ++i) {
    const size_t pair = flat.table({0, 0});
    flat.lead(FlatBuffer::element(pairs, i), pair);
    flat.lead(FlatBuffer::field(pair, 0), flat.text(metadata[i].first));
    flat.lead(FlatBuffer::field(pair, 1), flat.text(metadata[i].second));
  }
  return table;
}

// Message: version, header's kind, header, bytes of the body.
FlatBuffer message(uint64_t kind, uint64_t body, const auto& header) {
  FlatBuffer flat;
  const size_t table = flat.table({kVersion5, kind, 0, body});
  flat.root(table);
  flat.lead(FlatBuffer::field(table, 2), header(flat));
  return flat;
}

constexpr std::byte kZeros[64] = {};
constexpr uint64_t padded(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

template <typename T>
std::span<const std::byte> bytes_of(const T& values) {
  return std::as_bytes(std::span(values.data(), values.size()));
}

void write_padded(OutputFile& file, std::span<const std::byte> bytes, uint64_t to) {
  file.write(bytes);
  file.write(std::span(kZeros).first(padded(bytes.size(), to) - bytes.size()));
}

// A flatbuffer as a message in the file. The bytes of it with what is before and behind it.
int32_t write_message(OutputFile& file, const FlatBuffer& flat) {
  const uint64_t size = padded(flat.bytes().size(), 8);
  const uint32_t head[] = {0xffffffff, static_cast<uint32_t>(size)};
  file.write(std::as_bytes(std::span(head)));
  write_padded(file, flat.bytes(), 8);
  return static_cast<int32_t>(size + sizeof head);
}

constexpr char kMagic[] = "ARROW1";
constexpr uint64_t kBufferAlignment = 64;

}  // namespace

ShardFile::ShardFile(const std::string& path, const std::vector<std::pair<std::string, std::string>>& metadata)
    : file_(path), metadata_(metadata), image_ends_{0}, name_ends_{0} {
  file_.write(std::as_bytes(std::span(kMagic, 8 - 1)));
  file_.write(std::span(kZeros).first(1));
  write_message(file_, message(kSchema, 0, [&](FlatBuffer& flat) { return schema(flat, metadata_); }));
}

void ShardFile::add(std::span<const std::byte> image, int32_t label, std::string_view name) {
  images_.insert(images_.end(), image.begin(), image.end());
  image_ends_.push_back(static_cast<int32_t>(images_.size()));
  labels_.push_back(label);
  names_ += name;
  name_ends_.push_back(static_cast<int32_t>(names_.size()));
  if (labels_.size() >= kMostRows || images_.size() >= kMostBytes) flush();
}

void ShardFile::flush() {
  if (labels_.empty()) return;
  const uint64_t rows = labels_.size();
  const std::span<const std::byte> validity;  // none: no nulls
  const std::span<const std::byte> buffers[] = {validity,          bytes_of(image_ends_), bytes_of(images_), validity,
                                                bytes_of(labels_), validity,              bytes_of(name_ends_), bytes_of(names_)};
  std::vector<uint64_t> places;
  uint64_t body = 0;
  for (const auto& buffer : buffers) {
    places.insert(places.end(), {body, buffer.size()});
    body += padded(buffer.size(), kBufferAlignment);
  }
  const FlatBuffer head = message(kRecordBatch, body, [&](FlatBuffer& flat) {
    // rows, columns' rows and nulls, buffers' places and bytes
    const size_t table = flat.table({rows, 0, 0});
    flat.lead(FlatBuffer::field(table, 1), flat.structs({rows, 0, rows, 0, rows, 0}, 2));
    flat.lead(FlatBuffer::field(table, 2), flat.structs(places, 2));
    return table;
  });
  const uint64_t at = file_.size();
  blocks_.push_back({at, write_message(file_, head), body});
  for (const auto& buffer : buffers) write_padded(file_, buffer, kBufferAlignment);
  images_.clear();
  names_.clear();
  labels_.clear();
  image_ends_.assign(1, 0);
  name_ends_.assign(1, 0);
}

uint64_t ShardFile::finish() {
  flush();
  const uint32_t end[] = {0xffffffff, 0};
  file_.write(std::as_bytes(std::span(end)));
  FlatBuffer footer;
  // version, schema, dictionaries, batches
  const size_t table = footer.table({kVersion5, 0, 0, 0});
  footer.root(table);
  footer.lead(FlatBuffer::field(table, 1), schema(footer, metadata_));
  footer.lead(FlatBuffer::field(table, 2), footer.structs({}, 3));
  std::vector<uint64_t> blocks;
  for (const Block& block : blocks_) blocks.insert(blocks.end(), {block.at, static_cast<uint64_t>(block.head), block.body});
  footer.lead(FlatBuffer::field(table, 3), footer.structs(blocks, 3));
  write_padded(file_, footer.bytes(), 8);
  const uint32_t size[] = {static_cast<uint32_t>(padded(footer.bytes().size(), 8))};
  file_.write(std::as_bytes(std::span(size)));
  file_.write(std::as_bytes(std::span(kMagic, 6)));
  file_.finish();
  return file_.size();
}

}  // namespace lth
