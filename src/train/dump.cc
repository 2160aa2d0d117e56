#include "train/dump.h"

#include <cmath>
#include <limits>

#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"

namespace mhmoe::train {
namespace {

struct Extremes {
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  int64_t nan = 0;
};

template <class T>
Extremes extremes(const Tensor& tensor) {
  Extremes out;
  const T* values = tensor.as<T>();
  for (int64_t i = 0; i < tensor.count(); ++i) {
    double value;
    if constexpr (std::is_same_v<T, bfloat16>) {
      value = static_cast<float>(values[i]);
    } else {
      value = static_cast<double>(values[i]);
    }
    if (std::isnan(value)) {
      ++out.nan;
      continue;
    }
    out.min = std::min(out.min, value);
    out.max = std::max(out.max, value);
    out.sum += value;
  }
  return out;
}

Extremes extremes_of(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return extremes<float>(tensor);
    case DType::kBF16:
      return extremes<bfloat16>(tensor);
    case DType::kF64:
      return extremes<double>(tensor);
    case DType::kI32:
      return extremes<int32_t>(tensor);
    case DType::kI64:
      return extremes<int64_t>(tensor);
    case DType::kU8:
      return extremes<uint8_t>(tensor);
  }
  return {};
}

std::string index_line(const NamedTensor& named) {
  const Tensor& tensor = named.tensor;
  const Extremes found = extremes_of(tensor);
  const int64_t numbers = tensor.count() - found.nan;
  json::Value line = json::Value::object();
  line.add("name", named.name);
  line.add("dtype", std::string(to_string(tensor.dtype)));
  json::Value& shape = line.add("shape", json::Value::array());
  for (const int64_t dim : tensor.shape()) shape.add(dim);
  line.add("min", found.min);
  line.add("max", found.max);
  line.add("mean", numbers > 0 ? found.sum / static_cast<double>(numbers) : 0);
  line.add("nan", found.nan);
  line.add("xxh3", to_hex(xxh3(tensor.data, tensor.bytes())));
  return json::to_line(line) + "\n";
}

}  // namespace

void DumpObserver::record(const std::string& name, const Tensor& tensor) {
  const int occurrence = seen_[name]++;
  bytes_.emplace_back(tensor.bytes());
  ctx_.download(bytes_.back().data(), tensor);
  tensors_.push_back({occurrence == 0 ? name : fmt::format("{}@{}", name, occurrence),
                      Tensor(bytes_.back().data(), tensor.dtype, tensor.shape())});
}

void DumpObserver::write(const std::string& folder, int64_t step) const {
  const std::string stem = fmt::format("{}/step-{}", folder, step);
  create_parent_folder(stem);
  write_safetensors(stem + ".safetensors", tensors_);
  AtomicFile index(stem + ".jsonl");
  for (const NamedTensor& tensor : tensors_) index.write(index_line(tensor));
  index.commit();
}

}  // namespace mhmoe::train
