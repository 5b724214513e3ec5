// A stack of growing blocks a thread. Blocks never move, so pointers stay valid.
#include "core/arena.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <vector>

namespace honed {

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kFirstBlock = size_t{1} << 20;
constexpr size_t kMostKept = size_t{128} << 20;  // by a thread that uses none of it

struct Block {
  char* data;
  size_t size, used;
};

struct Stack {
  std::vector<Block> blocks;
  size_t top = 0;  // index of the block in use
  ~Stack() {
    for (Block& block : blocks) free_aligned(block.data);
  }
};

thread_local Stack stack;

}  // namespace

void* allocate_aligned(int64_t bytes) {
  bool huge = bytes >= int64_t(2 * kHugePage);
  size_t align = huge ? kHugePage : kAlign;
  size_t size = (size_t(bytes ? bytes : 1) + align - 1) / align * align;
  void* data = std::aligned_alloc(align, size);
  if (!data) throw std::bad_alloc();
  if (huge) madvise(data, size, MADV_HUGEPAGE);
  return data;
}

void free_aligned(void* data) { std::free(data); }

Scratch::Scratch(int64_t bytes) {
  size_t need = (size_t(bytes) + kAlign - 1) / kAlign * kAlign;
  while (stack.top < stack.blocks.size() &&
         stack.blocks[stack.top].size - stack.blocks[stack.top].used < need) {
    if (stack.blocks[stack.top].used == 0) {  // an empty block that is too small: replace it
      free_aligned(stack.blocks[stack.top].data);
      stack.blocks.erase(stack.blocks.begin() + long(stack.top));
    } else {
      ++stack.top;
    }
  }
  if (stack.top == stack.blocks.size()) {
    size_t size = need > kFirstBlock ? need : kFirstBlock;
    stack.blocks.push_back({static_cast<char*>(allocate_aligned(int64_t(size))), size, 0});
  }
  Block& block = stack.blocks[stack.top];
  block_ = stack.top;
  before_ = block.used;
  data_ = block.data + block.used;
  block.used += need;
}

Scratch::~Scratch() {
  stack.blocks[block_].used = before_;
  stack.top = block_;
  if (block_ > 0 || before_ > 0) return;
  size_t kept = 0;
  for (const Block& block : stack.blocks) kept += block.size;
  if (kept <= kMostKept) return;
  for (const Block& block : stack.blocks) free_aligned(block.data);
  stack.blocks.clear();
}

std::shared_ptr<uint8_t[]> allocate_packed(int64_t bytes) {
  constexpr int64_t kSlab = int64_t{16} << 20;
  auto own = [](int64_t size) {
    return std::shared_ptr<uint8_t[]>(static_cast<uint8_t*>(allocate_aligned(size)), free_aligned);
  };
  if (bytes > kSlab / 2) return own(bytes);
  // A slab a thread: without a lock, which a fork could leave taken in the child.
  thread_local std::weak_ptr<uint8_t[]> current;
  thread_local int64_t used = 0;
  std::shared_ptr<uint8_t[]> slab = current.lock();
  if (!slab || used + bytes > kSlab) {
    slab = own(kSlab);
    current = slab;
    used = 0;
  }
  uint8_t* at = slab.get() + used;
  used += (bytes + int64_t(kAlign) - 1) / int64_t(kAlign) * int64_t(kAlign);
  return {std::move(slab), at};
}

}  // namespace honed
