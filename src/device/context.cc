#include "device/context.h"

#include "core/log.h"
#include "device/communicator.h"

namespace mhmoe {

TensorObserver::~TensorObserver() = default;
WorkObserver::~WorkObserver() = default;
RecordedWork::~RecordedWork() = default;
Communicator::~Communicator() = default;

Context::Context(std::unique_ptr<MemorySource> memory, const ops::KernelTable* kernels, std::string name, bool sizing)
    : memory_(std::move(memory)),
      kernels_(kernels),
      name_(std::move(name)),
      sizing_(sizing),
      state_(*memory_, "state"),
      step_(*memory_, "step") {}

Context::~Context() = default;

void Context::upload(const Tensor& dst, const void* src) {
  if (sizing() || dst.count() == 0) return;
  MHMOE_CHECK(!recording_, "upload of {} in recorded work", dst.describe());
  do_upload(dst, src);
}

void Context::download(void* dst, const Tensor& src) {
  if (sizing() || src.count() == 0) return;
  check_host_sync("Context::download");
  do_download(dst, src);
}

void Context::fill_zero(const Tensor& dst) {
  watch([&](WorkObserver& observer) { observer.begin_fill(dst); },
        [&] {
          if (!sizing() && dst.count() > 0) do_fill_zero(dst);
        });
}

void Context::copy(const Tensor& dst, const Tensor& src) {
  MHMOE_CHECK(dst.dtype == src.dtype && dst.count() == src.count(), "copy: {} from {}", dst.describe(), src.describe());
  if (dst.data == src.data) return;
  watch([&](WorkObserver& observer) { observer.begin_copy(dst, src); },
        [&] {
          if (!sizing() && dst.count() > 0) do_copy(dst, src);
        });
}

void Context::synchronize() {
  if (sizing()) return;
  check_host_sync("Context::synchronize");
  do_synchronize();
}

void Context::check_host_sync(const char* call) const {
  MHMOE_CHECK(!recording_, "{} in recorded work", call);
  MHMOE_CHECK(!host_sync_forbidden_,
              "{} waits for the device within the queued part of a step (train.forbid_host_sync)", call);
}

std::unique_ptr<RecordedWork> Context::record(const std::function<void()>& work) {
  MHMOE_CHECK(can_record() && !recording_, "{} cannot record work{}", name_, recording_ ? " within a recording" : "");
  struct Recording {
    explicit Recording(Context& context) : ctx(context) {
      ctx.recording_ = true;
      ctx.step_.freeze();
      ctx.state_.freeze();
    }
    ~Recording() {
      ctx.recording_ = false;
      ctx.step_.thaw();
      ctx.state_.thaw();
    }
    Context& ctx;
  } const recording(*this);
  return do_record(work);
}

std::unique_ptr<RecordedWork> Context::do_record(const std::function<void()>& /*work*/) {
  return nullptr;
}

NoHostSync::NoHostSync(Context& ctx, bool on) : ctx_(ctx), on_(on && !ctx.sizing()) {
  if (!on_) return;
  ctx_.forbid_host_sync(true);
  ctx_.step().freeze();
}

NoHostSync::~NoHostSync() {
  if (!on_) return;
  ctx_.forbid_host_sync(false);
  ctx_.step().thaw();
}

CommunicationScope::CommunicationScope(Context& ctx) : ctx_(ctx), scope_(ctx.step()) {
  ctx_.wait(Stream::kCommunication, ctx_.mark(Stream::kCompute));
}

// A call that fails here leaves an error that every later call repeats.
CommunicationScope::~CommunicationScope() {
  try {
    ctx_.wait(Stream::kCompute, ctx_.mark(Stream::kCommunication));
  } catch (const Error& error) {
    log::error("{}", error.what());
  }
}

namespace {

// Hands out addresses that nothing may touch.
class FakeMemory final : public MemorySource {
 public:
  explicit FakeMemory(DeviceKind kind) : kind_(kind) {}
  void* allocate(size_t bytes) override {
    const uintptr_t address = next_;
    next_ += (bytes / Arena::kAlignment + 1) * Arena::kAlignment;
    return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
  }
  void release(void* /*data*/) override {}
  DeviceKind kind() const override { return kind_; }

 private:
  DeviceKind kind_;
  uintptr_t next_ = Arena::kAlignment;
};

class SizingContext final : public Context {
 public:
  SizingContext(DeviceKind kind, const ops::KernelTable* kernels)
      : Context(std::make_unique<FakeMemory>(kind), kernels, "sizing", true) {
    state().record_peak(true);
    step().record_peak(true);
  }

 protected:
  // Never called: the public functions return first in a sizing pass.
  void do_upload(const Tensor& /*dst*/, const void* /*src*/) override {}
  void do_download(void* /*dst*/, const Tensor& /*src*/) override {}
  void do_fill_zero(const Tensor& /*dst*/) override {}
  void do_copy(const Tensor& /*dst*/, const Tensor& /*src*/) override {}
};

}  // namespace

std::unique_ptr<Context> make_sizing_context(DeviceKind kind, const ops::KernelTable* kernels) {
  return std::make_unique<SizingContext>(kind, kernels);
}

}  // namespace mhmoe
