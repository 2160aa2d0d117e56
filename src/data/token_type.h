// How a token shard stores its ids.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace mhmoe::data {

enum class TokenType : uint8_t { kUInt8, kInt8, kInt16, kInt32, kInt64, kUInt16, kUInt32 };

// f(T()) for the C++ type of `type`.
template <class F>
decltype(auto) visit_token_type(TokenType type, F&& f) {
  switch (type) {
    case TokenType::kUInt8:
      return f(uint8_t{});
    case TokenType::kInt8:
      return f(int8_t{});
    case TokenType::kInt16:
      return f(int16_t{});
    case TokenType::kInt32:
      return f(int32_t{});
    case TokenType::kInt64:
      return f(int64_t{});
    case TokenType::kUInt16:
      return f(uint16_t{});
    case TokenType::kUInt32:
      return f(uint32_t{});
  }
  fail(ExitCode::kInternal, "token type {}", static_cast<int>(type));
}

inline int64_t bytes_of(TokenType type) {
  return visit_token_type(type, [](auto zero) { return static_cast<int64_t>(sizeof(zero)); });
}

inline std::string_view to_string(TokenType type) {
  constexpr std::string_view kNames[] = {"uint8", "int8", "int16", "int32", "int64", "uint16", "uint32"};
  return kNames[static_cast<int>(type)];
}

}  // namespace mhmoe::data
