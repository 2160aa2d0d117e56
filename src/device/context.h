// A device at work: its memory, its two arenas, its copies, and the kernels that run on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/arena.h"
#include "core/tensor.h"

namespace mhmoe {

enum class StepPart : uint8_t;  // device/step_part.h

namespace ops {
struct KernelTable;
struct OpCall;
}  // namespace ops

// Sees named tensors as layers produce them (trace, --dump). `tensor` lives on the context's device.
class MHMOE_API TensorObserver {
 public:
  virtual ~TensorObserver();
  virtual void record(const std::string& name, const Tensor& tensor) = 0;
};

// Sees all work on the device as it is handed over, in sizing passes too: ops, fills and copies, one after the other.
class MHMOE_API WorkObserver {
 public:
  virtual ~WorkObserver();
  virtual void begin(const ops::OpCall& call) = 0;
  virtual void begin_fill(const Tensor& dst) = 0;
  virtual void begin_copy(const Tensor& dst, const Tensor& src) = 0;
  virtual void end() = 0;  // of what was begun last: it is queued, if this is no sizing pass
};

// A device's two queues of work. Each does its work in order, and neither knows of the other's but through a wait.
// Everything that a Context or an op does is put on the compute stream.
enum class Stream : uint8_t { kCompute, kCommunication };

// What a stream had been given when the mark was made.
struct StreamMark {
  Stream stream;
  uint64_t number;
};

// Device work that can be done again as it was.
class MHMOE_API RecordedWork {
 public:
  virtual ~RecordedWork();
  // Puts the work on the compute stream, with the addresses and arguments of its recording.
  virtual void replay() = 0;
};

class MHMOE_API Context {
 public:
  virtual ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  DeviceKind kind() const { return memory_->kind(); }
  // The name a person sees: "cpu", "cuda:0 NVIDIA H100", "emulated (correctness only)".
  const std::string& name() const { return name_; }

  // State: parameters, gradients, optimizer. Step: activations and scratch, in scopes.
  Arena& state() { return state_; }
  Arena& step() { return step_; }

  // In a sizing pass ops check shapes, arenas count bytes (kernels' scratch too), and nothing is computed or copied.
  bool sizing() const { return sizing_; }
  // Null only in a sizing pass that counts no kernels' scratch.
  const ops::KernelTable* kernels() const { return kernels_; }

  // Host <-> device, of src.bytes() or dst.bytes(); both return when the host memory may be reused or read. An upload
  // does not wait for the device as long as no more than plan_uploads() said are under way; a download waits for
  // everything before it.
  void upload(const Tensor& dst, const void* src);
  void download(void* dst, const Tensor& src);
  virtual void plan_uploads(size_t /*bytes*/) {}
  void fill_zero(const Tensor& dst);
  void copy(const Tensor& dst, const Tensor& src);  // on the device; equal dtype and count
  // Waits for all work of both streams.
  void synchronize();
  // While forbidden, to wait for the device is an error (kInternal) that names the call.
  void forbid_host_sync(bool forbidden) { host_sync_forbidden_ = forbidden; }

  // The streams, in the device's own type; null where the device has none: there all work is done in order, at once.
  virtual void* compute_stream() const { return nullptr; }
  virtual void* communication_stream() const { return nullptr; }
  // A mark is good until 32 more have been made.
  virtual StreamMark mark(Stream stream) { return {stream, 0}; }
  // What `waiting` is given from here on starts after all that lies before the mark.
  virtual void wait(Stream /*waiting*/, StreamMark /*mark*/) {}

  // Whether the device can record work.
  virtual bool can_record() const { return false; }
  // Runs `work` without doing what it puts on the streams, and keeps that. It must have run before, so that libraries
  // are set up; it may not upload, download, wait, or need new blocks of an arena; communication must be joined at its
  // end. A recording is good while both arenas' generation() stays.
  std::unique_ptr<RecordedWork> record(const std::function<void()>& work);

  // Of a training step, that work from here on belongs to; for observers. Set by StepPartScope.
  StepPart part() const { return part_; }
  StepPart set_part(StepPart part) { return std::exchange(part_, part); }

  void set_work_observer(WorkObserver* observer) { work_observer_ = observer; }
  // Work is looked at piece by piece: none of it may come from a recording.
  bool watched() const { return work_observer_ != nullptr; }
  // Hands a piece of work to the device under the observer's eyes, if there is one. What a kernel fills or copies is
  // part of its op.
  template <class Begin, class Work>
  void watch(Begin&& begin, Work&& work) {
    WorkObserver* const observer = std::exchange(work_observer_, nullptr);
    if (observer != nullptr) begin(*observer);
    work();
    if (observer != nullptr) observer->end();
    work_observer_ = observer;
  }

  void set_observer(TensorObserver* observer) { observer_ = observer; }
  bool observed() const { return observer_ != nullptr && !sizing(); }
  // Does nothing unless observed(): `name` is formatted only then.
  template <class... Args>
  void observe(const Tensor& tensor, fmt::format_string<Args...> name, Args&&... args) {
    if (observed()) observer_->record(fmt::format(name, std::forward<Args>(args)...), tensor);
  }

 protected:
  Context(std::unique_ptr<MemorySource> memory, const ops::KernelTable* kernels, std::string name, bool sizing = false);

  virtual void do_upload(const Tensor& dst, const void* src) = 0;
  virtual void do_download(void* dst, const Tensor& src) = 0;
  virtual void do_fill_zero(const Tensor& dst) = 0;
  virtual void do_copy(const Tensor& dst, const Tensor& src) = 0;
  virtual void do_synchronize() {}
  virtual std::unique_ptr<RecordedWork> do_record(const std::function<void()>& work);
  // Called before every wait of the host for the device, with the name of what waits.
  void check_host_sync(const char* call) const;
  bool recording() const { return recording_; }

 private:
  std::unique_ptr<MemorySource> memory_;
  const ops::KernelTable* kernels_;
  std::string name_;
  bool sizing_;
  bool host_sync_forbidden_ = false;
  bool recording_ = false;
  StepPart part_{};
  Arena state_;
  Arena step_;
  TensorObserver* observer_ = nullptr;
  WorkObserver* work_observer_ = nullptr;
};

// Until its end a wait for the device is an error, and so is a new block of the step arena.
class MHMOE_API NoHostSync {
 public:
  // Not `on`, or in a sizing pass: does nothing.
  NoHostSync(Context& ctx, bool on);
  ~NoHostSync();
  NoHostSync(const NoHostSync&) = delete;
  NoHostSync& operator=(const NoHostSync&) = delete;

 private:
  Context& ctx_;
  bool on_;
};

// A scope of the step arena whose tensors the communication stream works on too. It begins when compute's earlier use
// of the memory is over, and at its end the compute stream waits for the communication stream before anything else gets
// the memory. In between, each stream waits for what it needs of the other by marks.
class MHMOE_API CommunicationScope {
 public:
  explicit CommunicationScope(Context& ctx);
  ~CommunicationScope();
  CommunicationScope(const CommunicationScope&) = delete;
  CommunicationScope& operator=(const CommunicationScope&) = delete;

 private:
  Context& ctx_;
  ArenaScope scope_;
};

// A context whose ops compute nothing: run the same code once to learn what its arenas need. kernels: the backend's,
// whose scratch is counted; null where no backend is meant.
std::unique_ptr<Context> MHMOE_API make_sizing_context(DeviceKind kind, const ops::KernelTable* kernels);

}  // namespace mhmoe
