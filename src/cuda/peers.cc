#include "cuda/peers.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "cuda/cuda_check.h"

namespace mhmoe::cuda {
namespace {

constexpr int kPollsBeforeSleep = 200;
constexpr std::chrono::microseconds kSleep(50);
constexpr std::chrono::seconds kLongestAbort(1);

class CountedWork final : public RecordedWork {
 public:
  explicit CountedWork(std::unique_ptr<RecordedWork> work) : work_(std::move(work)) {}
  void add(Peer& peer) { traffic_.emplace_back(&peer, peer.take_recorded()); }
  void replay() override {
    work_->replay();
    for (const auto& [peer, traffic] : traffic_) peer->add(traffic);
  }

 private:
  std::unique_ptr<RecordedWork> work_;
  std::vector<std::pair<Peer*, TrafficCounter>> traffic_;
};

}  // namespace

std::unique_ptr<RecordedWork> Peers::count(const std::function<std::unique_ptr<RecordedWork>()>& record) {
  if (peers_.empty()) return record();
  for (Peer* peer : peers_) peer->take_recorded();  // what is left of a recording that failed
  auto work = std::make_unique<CountedWork>(record());
  for (Peer* peer : peers_) work->add(*peer);
  return work;
}

void Peers::add(Peer& peer, Monitor& monitor) {
  {
    const std::lock_guard lock(mutex_);
    peers_.push_back(&peer);
  }
  if (monitor_ == &monitor) return;
  monitor_ = &monitor;
  monitor.on_timeout([](void* self) { static_cast<Peers*>(self)->give_up(); }, this);
}

// The monitor is told without the lock, which its thread takes while it calls give_up.
void Peers::remove(Peer& peer) {
  {
    const std::lock_guard lock(mutex_);
    std::erase(peers_, &peer);
  }
  if (!peers_.empty() || monitor_ == nullptr) return;
  monitor_->on_timeout(nullptr, nullptr);
  monitor_ = nullptr;
}

void Peers::give_up() {
  const std::lock_guard lock(mutex_);
  for (Peer* peer : peers_) peer->begin_abort();
  const auto deadline = std::chrono::steady_clock::now() + kLongestAbort;
  const auto ended = [this] { return std::ranges::all_of(peers_, [](Peer* peer) { return peer->abort_ended(); }); };
  while (!ended() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(kSleep);
}

// Peers come and go on this thread alone, so that it reads them without the lock.
void Peers::check() {
  for (Peer* peer : peers_) {
    const std::string failure = peer->failure();
    if (failure.empty()) continue;
    give_up();
    fail(ExitCode::kPeerLost, "{}", failure);
  }
}

template <class Query>
void Peers::poll(const char* call, Query&& query) {
  struct Waiting {
    explicit Waiting(Monitor& known) : monitor(known) { monitor.enter_device_wait(); }
    ~Waiting() { monitor.leave(); }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    Monitor& monitor;
  } const waiting(*monitor_);
  cudaError_t code = query();
  for (int polls = 0; code == cudaErrorNotReady; ++polls, code = query()) {
    cudaGetLastError();  // "not ready" is an answer, not an error for the next call to report
    check();
    if (polls >= kPollsBeforeSleep) std::this_thread::sleep_for(kSleep);
  }
  check();  // first, since a device whose communicators were given up may fail for that
  check_call(code, call, __FILE__, __LINE__);
}

void Peers::wait(cudaStream_t stream) {
  if (peers_.empty()) {
    MHMOE_CUDA_CHECK(cudaStreamSynchronize(stream));
  } else {
    poll("cudaStreamQuery(stream)", [stream] { return cudaStreamQuery(stream); });
  }
}

void Peers::wait(cudaEvent_t event) {
  if (peers_.empty()) {
    MHMOE_CUDA_CHECK(cudaEventSynchronize(event));
  } else {
    poll("cudaEventQuery(event)", [event] { return cudaEventQuery(event); });
  }
}

}  // namespace mhmoe::cuda
