// Marks what the executable exports to backend modules: core and device classes are shared, never duplicated.
#pragma once

#define MHMOE_API __attribute__((visibility("default")))
