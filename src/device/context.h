// A device at work: its memory, its two arenas, its copies, and the kernels that run on it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/arena.h"
#include "core/tensor.h"

namespace mhmoe {

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

  // Host <-> device, of src.bytes() or dst.bytes(); both return when the host memory may be reused or read.
  void upload(const Tensor& dst, const void* src);
  void download(void* dst, const Tensor& src);
  void fill_zero(const Tensor& dst);
  void copy(const Tensor& dst, const Tensor& src);  // on the device; equal dtype and count
  virtual void synchronize() {}
  // The stream ops run on, in the device's own type; null where the device has none.
  virtual void* compute_stream() const { return nullptr; }

  void set_work_observer(WorkObserver* observer) { work_observer_ = observer; }
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

 private:
  std::unique_ptr<MemorySource> memory_;
  const ops::KernelTable* kernels_;
  std::string name_;
  bool sizing_;
  Arena state_;
  Arena step_;
  TensorObserver* observer_ = nullptr;
  WorkObserver* work_observer_ = nullptr;
};

// A context whose ops compute nothing: run the same code once to learn what its arenas need. kernels: the backend's,
// whose scratch is counted; null where no backend is meant.
std::unique_ptr<Context> MHMOE_API make_sizing_context(DeviceKind kind, const ops::KernelTable* kernels);

}  // namespace mhmoe
