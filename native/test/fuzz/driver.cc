// Runs a fuzz target without libFuzzer, under any compiler and sanitizer. The corpus comes first, then mutations of it.
//
//   fuzz_NAME [ITERATIONS [FIRST]]   e.g. 1 4711 repeats input 4711
//   fuzz_NAME FILE ...               these inputs alone
//   fuzz_NAME --keep ITERATIONS      adds to the corpus an input for each outcome that it does not reach yet
//   fuzz_NAME --seeds                writes the seeds into the corpus
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/mutate.h"

// Inputs are some thousand bytes, so a reader that wants megabytes believes a number in them. AddressSanitizer ends the
// program at such a request; its quarantine of freed memory is not the reader's.
extern "C" const char* __asan_default_options() {
  return "max_allocation_size_mb=8:hard_rss_limit_mb=512:quarantine_size_mb=16";
}
// There under a sanitizer alone.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*)());

namespace {

namespace fs = std::filesystem;

constexpr long kMostMemory = 512 << 10;  // KiB of resident memory, sanitizer and driver included
constexpr long kMostSeconds = 20;        // of the processor for a thousand inputs; one takes microseconds

fs::path corpus;
uint32_t current = 0;
const Bytes* current_input = nullptr;

// What failed is named and kept, with calls that a signal handler may make.
void name_input() {
  if (!current_input) return;
  char text[200];
  const int length = std::snprintf(text, sizeof text, "fuzz: input %u failed; it is in fuzz-failure.bin\n", current);
  std::FILE* file = std::fopen("fuzz-failure.bin", "wb");
  if (file) {
    std::fwrite(current_input->data(), 1, current_input->size(), file);
    std::fclose(file);
  }
  if (::write(2, text, static_cast<size_t>(length)) < 0) return;
}
void on_signal(int signal) {
  if (signal == SIGPROF) std::fputs("fuzz: takes too long\n", stderr);
  name_input();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void look_at(const Bytes& input) {
  current_input = &input;
  LLVMFuzzerTestOneInput(input.data(), input.size());
  current_input = nullptr;
}

Bytes bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write(const fs::path& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
}

// The target's own seeds, then the files of the corpus in the order of their names.
std::vector<Bytes> all_seeds(size_t& valid) {
  std::vector<fs::path> paths;
  if (fs::is_directory(corpus)) {
    for (const auto& entry : fs::directory_iterator(corpus)) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> seeds = fuzz_seeds();
  valid = seeds.size();
  for (const fs::path& path : paths) seeds.push_back(bytes_of(path));
  return seeds;
}

// Leaves out what is not needed to end with `outcome`: halves first, single bytes at last.
Bytes smallest(Bytes input, const std::string& outcome) {
  for (size_t piece = std::max<size_t>(input.size() / 2, 1);; piece /= 2) {
    for (size_t at = 0; at < input.size();) {
      Bytes shorter(input.begin(), input.begin() + static_cast<long>(at));
      shorter.insert(shorter.end(), input.begin() + static_cast<long>(std::min(at + piece, input.size())), input.end());
      outcomes().clear();
      look_at(shorter);
      if (outcomes().count(outcome)) {
        input = shorter;
      } else {
        at += piece;
      }
    }
    if (piece <= 1) return input;
  }
}

void keep_new(uint32_t iterations) {
  size_t valid = 0;
  const std::vector<Bytes> seeds = all_seeds(valid);
  outcomes().clear();
  for (const Bytes& seed : seeds) look_at(seed);
  std::map<std::string, uint64_t> known = outcomes();
  fs::create_directories(corpus);
  for (current = 0; current < iterations; ++current) {
    outcomes().clear();
    const Bytes input = Mutator(current).from(seeds, valid);
    look_at(input);
    const auto reached = outcomes();
    int kept = 0;
    for (const auto& [outcome, n] : reached) {
      if (known.count(outcome)) continue;
      const Bytes small = smallest(input, outcome);
      write(corpus / ("input-" + std::to_string(current) + (kept ? "-" + std::to_string(kept) : "")), small);
      std::printf("input-%u: %s\n", current, outcome.c_str());
      ++kept;
      outcomes().clear();
      look_at(small);
      known.merge(outcomes());
    }
  }
}

int report(uint64_t inputs, std::chrono::steady_clock::time_point began) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
  uint64_t accepted = 0;
  for (const auto& [outcome, n] : outcomes()) {
    if (outcome.ends_with(": accepted")) accepted += n;
    if (std::getenv("LTH_FUZZ_OUTCOMES")) std::printf("%9lu %s\n", static_cast<unsigned long>(n), outcome.c_str());
  }
  std::printf("%lu inputs, %zu outcomes, accepted %lu times, %.0f s, peak %ld MiB\n", static_cast<unsigned long>(inputs),
              outcomes().size(), static_cast<unsigned long>(accepted), seconds.count(), usage.ru_maxrss >> 10);
  if (usage.ru_maxrss <= kMostMemory) return 0;
  std::fprintf(stderr, "fuzz: takes more than %ld MiB of memory\n", kMostMemory >> 10);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const auto began = std::chrono::steady_clock::now();
  corpus = fs::path(LTH_CORPUS) / fs::path(argv[0]).filename();
  for (const int signal : {SIGPROF, SIGABRT}) std::signal(signal, on_signal);
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(name_input);
  const auto number = [&](int i, uint32_t otherwise) {
    return argc > i ? static_cast<uint32_t>(std::strtoul(argv[i], nullptr, 10)) : otherwise;
  };
  if (argc > 1 && std::strcmp(argv[1], "--seeds") == 0) {
    fs::create_directories(corpus);
    int n = 0;
    for (const Bytes& seed : fuzz_seeds()) write(corpus / ("seed-" + std::to_string(n++)), seed);
    return 0;
  }
  if (argc > 1 && std::strcmp(argv[1], "--keep") == 0) {
    keep_new(number(2, 100000));
    return 0;
  }
  if (argc > 1 && std::strspn(argv[1], "0123456789") != std::strlen(argv[1])) {
    for (int i = 1; i < argc; ++i) look_at(bytes_of(argv[i]));
    return report(static_cast<uint64_t>(argc - 1), began);
  }
  const uint32_t iterations = number(1, 20000), first = number(2, 0);
  size_t valid = 0;
  const std::vector<Bytes> seeds = all_seeds(valid);
  for (const Bytes& seed : seeds) look_at(seed);
  for (uint32_t i = 0; i < iterations; ++i) {
    const itimerval limit = {{0, 0}, {kMostSeconds, 0}};
    if (i % 1000 == 0) ::setitimer(ITIMER_PROF, &limit, nullptr);
    current = first + i;
    const Bytes input = Mutator(current).from(seeds, valid);
    look_at(input);
  }
  return report(seeds.size() + iterations, began);
}
