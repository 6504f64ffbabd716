// The threads of a session. Run under ThreadSanitizer too.
#include <atomic>
#include <chrono>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>

#include "check.h"
#include "core/pool.h"

using namespace lth;

TEST("every task runs exactly once, for any number of threads and tasks") {
  for (const int threads : {1, 2, 3, 8}) {
    Pool pool(threads);
    CHECK_EQUAL(pool.threads(), threads);
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<int> runs(static_cast<size_t>(tasks), 0);  // tasks write disjoint places: no atomics
      pool.parallel(tasks, [&](int64_t i) { ++runs[i]; });
      for (const int n : runs) CHECK_EQUAL(n, 1);
    }
  }
}

TEST("jobs that follow one another at once never mix") {
  Pool pool(4);
  // Each job writes its own number through its own function into memory that it alone owns: a late worker
  // that ran a task of an ended job would write to freed memory or leave a wrong number.
  for (int job = 0; job < 20000; ++job) {
    const int64_t tasks = 1 + job % 9;
    std::vector<int> out(static_cast<size_t>(tasks), -1);
    if (job % 2) {
      pool.parallel(tasks, [&out, job](int64_t i) { out[i] = job; });
    } else {
      pool.parallel(tasks, [&out, job, tasks](int64_t i) { out[tasks - 1 - i] = job; });
    }
    for (const int n : out) CHECK_EQUAL(n, job);
  }
}

TEST("what a task wrote is seen by the caller and by tasks of the next job") {
  Pool pool(3);
  std::vector<int64_t> a(3000), b(3000);
  for (int round = 0; round < 200; ++round) {
    pool.parallel(30, [&](int64_t t) {
      for (int64_t i = t * 100; i < t * 100 + 100; ++i) a[i] = i + round;
    });
    pool.parallel(30, [&](int64_t t) {
      for (int64_t i = t * 100; i < t * 100 + 100; ++i) b[i] = a[2999 - i];
    });
    CHECK_EQUAL(std::accumulate(b.begin(), b.end(), int64_t{0}), 2999 * 3000 / 2 + 3000 * round);
  }
}

TEST("workers wake from sleep") {
  Pool pool(2);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // long past the spinning
    std::atomic<int> together{0};
    // Both tasks must be under way at once, or this never ends: the worker really woke.
    pool.parallel(2, [&](int64_t) {
      ++together;
      while (together.load() < 2) std::this_thread::yield();
    });
  }
}

TEST("the caller takes part, and workers call on_start before their first task") {
  static std::atomic<int> starts;
  starts = 0;
  std::mutex mutex;
  std::set<std::thread::id> ids;
  {
    Pool pool(4, [] { ++starts; });
    std::atomic<int> together{0};
    pool.parallel(4, [&](int64_t) {
      ++together;
      while (together.load() < 4) std::this_thread::yield();
      const std::lock_guard guard(mutex);
      ids.insert(std::this_thread::get_id());
    });
    CHECK_EQUAL(starts.load(), 3);
  }
  CHECK_EQUAL(ids.size(), 4u);
  CHECK(ids.count(std::this_thread::get_id()) == 1);
}

TEST("pools come and go, spinning, asleep or unused") {
  for (int i = 0; i < 100; ++i) {
    Pool pool(1 + i % 5);
    if (i % 3) pool.parallel(i, [](int64_t) {});
    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST("more pools than cores all go on") {
  std::vector<std::thread> sessions;
  std::atomic<int64_t> sum{0};
  for (int s = 0; s < 6; ++s) {
    sessions.emplace_back([&sum] {
      Pool pool(3);
      for (int job = 0; job < 300; ++job) pool.parallel(5, [&](int64_t i) { sum += i; });
    });
  }
  for (std::thread& session : sessions) session.join();
  CHECK_EQUAL(sum.load(), 6 * 300 * 10);
}
