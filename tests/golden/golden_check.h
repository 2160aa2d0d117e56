// Compares computed tensors with a golden file's.
#pragma once

#include <gtest/gtest.h>

#include <iostream>

#include "golden/golden_case.h"
#include "reference/outputs.h"

namespace mhmoe::golden {

using reference::Bounds;
using reference::Deviation;
using reference::Outputs;

// The released precision differs from float64 by up to 5.2e-7 of max(1, largest).
constexpr double kReleasedBound = 5e-6;

inline size_t dropped(const std::vector<double>& slots, int64_t capacity) {
  return static_cast<size_t>(
      std::count_if(slots.begin(), slots.end(), [&](double slot) { return slot >= static_cast<double>(capacity); }));
}

// Capacity and drop counts as the metadata tells them.
inline void check_drops(const GoldenCase& golden, const Outputs& outputs, int64_t capacity) {
  EXPECT_EQ(capacity, golden.integer("capacity"));
  for (const auto& [name, values] : outputs) {
    if (!name.ends_with("slot")) continue;
    std::smatch layer;
    const bool named = std::regex_match(name, layer, std::regex(R"(layers\.(\d+)\.moe\.slot)"));
    const double expected =
        captured(golden, "dropped_assignments", named ? "\"" + layer[1].str() + R"(": *(\d+))" : R"(^(\d+)$)");
    EXPECT_EQ(static_cast<double>(dropped(values, capacity)), expected) << name;
  }
}

// Each tensor of the file is an input, or compared, or a failure; each output is in the file.
inline void check(const GoldenCase& golden, const Outputs& outputs, Bounds bounds, int64_t capacity) {
  if (golden.as_released) bounds = {std::max(bounds.absolute, kReleasedBound)};
  Deviation worst;
  size_t compared = 0;
  for (const std::string& name : golden.expected.names()) {
    if (const auto output = outputs.find(name); output != outputs.end()) {
      const Deviation deviation = deviation_of(name, output->second, golden.expected.doubles(name), bounds);
      EXPECT_LE(deviation.value, 1) << deviation.text;
      worst.take(deviation);
      ++compared;
    } else {
      const bool input = golden.parameters.contains(name) || name == "x" || name == "grad_output" || name == "tokens" ||
                         name == "targets";
      EXPECT_TRUE(input) << "unknown tensor " << name;
    }
  }
  if (!golden.as_released) {
    EXPECT_EQ(compared, outputs.size()) << "the file lacks some of the results of its format";
  }
  EXPECT_GT(compared, 0u);
  check_drops(golden, outputs, capacity);
  std::cout << golden.name() << ": " << compared << " tensors compared, worst " << worst.text << std::endl;
}

inline std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = std::filesystem::path(info.param).stem().string();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

}  // namespace mhmoe::golden
