// The host's own look at what the job `verify` must have left on a disk
// (docs/verify-format.md): every byte of every sector is made anew and compared.
//
// Old C# on purpose: Windows PowerShell 5.1 compiles it by `Add-Type`.

using System;
using System.IO;

namespace Firn
{
    public static class VerifyFormat
    {
        const int Sector = 512;
        // A disk is read in whole pieces, as a raw device demands.
        const int Piece = 1 << 20;

        // Compares `bytes` bytes from the start of `disk` with what a run with
        // this seed, generation and block size must have written there. Returns
        // null if all are the same, or a line that names the first sector that
        // is not.
        public static string Check(Stream disk, long bytes, ulong seed, ulong generation, uint block)
        {
            if (bytes % Sector != 0 || block == 0 || block % Sector != 0)
            {
                throw new ArgumentException("sizes must be multiples of 512 bytes");
            }
            byte[] piece = new byte[Piece];
            byte[] wanted = new byte[Sector];
            disk.Seek(0, SeekOrigin.Begin);
            for (long at = 0; at < bytes; at += Piece)
            {
                int size = (int)Math.Min(Piece, bytes - at);
                int have = Fill(disk, piece, size);
                for (int offset = 0; offset < size; offset += Sector)
                {
                    ulong sector = (ulong)(at + offset) / Sector;
                    if (offset + Sector > have)
                    {
                        return "the disk ends before sector " + sector;
                    }
                    Make(wanted, sector, seed, generation, block);
                    for (int index = 0; index < Sector; index++)
                    {
                        if (piece[offset + index] != wanted[index])
                        {
                            return "sector " + sector + " differs at byte " + index;
                        }
                    }
                }
            }
            return null;
        }

        // The sector as it must be.
        public static void Make(byte[] into, ulong sector, ulong seed, ulong generation, uint block)
        {
            Array.Clear(into, 0, Sector);
            into[0] = (byte)'F';
            into[1] = (byte)'R';
            into[2] = (byte)'N';
            into[3] = (byte)'V';
            into[4] = 1;
            Put(into, 8, seed, 8);
            Put(into, 16, sector, 8);
            Put(into, 24, generation, 8);
            Put(into, 32, block, 4);
            ulong state = Mix(Mix(seed ^ Mix(sector)) ^ generation);
            for (int word = 0; word < 58; word++)
            {
                state = unchecked(state + 0x9e3779b97f4a7c15UL);
                Put(into, 40 + 8 * word, Mix(state), 8);
            }
            Put(into, 504, sector % (block / Sector), 4);
            Put(into, 508, Crc32C(into, 508), 4);
        }

        static int Fill(Stream disk, byte[] piece, int size)
        {
            int have = 0;
            while (have < size)
            {
                int count = disk.Read(piece, have, size - have);
                if (count == 0)
                {
                    break;
                }
                have += count;
            }
            return have;
        }

        static void Put(byte[] into, int at, ulong value, int bytes)
        {
            for (int index = 0; index < bytes; index++)
            {
                into[at + index] = (byte)(value >> (8 * index));
            }
        }

        static ulong Mix(ulong z)
        {
            unchecked
            {
                z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9UL;
                z = (z ^ (z >> 27)) * 0x94d049bb133111ebUL;
                return z ^ (z >> 31);
            }
        }

        static readonly uint[] Table = MakeTable();

        static uint[] MakeTable()
        {
            uint[] table = new uint[256];
            for (uint index = 0; index < 256; index++)
            {
                uint value = index;
                for (int bit = 0; bit < 8; bit++)
                {
                    value = (value & 1) != 0 ? 0x82f63b78U ^ (value >> 1) : value >> 1;
                }
                table[index] = value;
            }
            return table;
        }

        static uint Crc32C(byte[] bytes, int count)
        {
            uint crc = 0xffffffffU;
            for (int index = 0; index < count; index++)
            {
                crc = Table[(crc ^ bytes[index]) & 0xff] ^ (crc >> 8);
            }
            return ~crc;
        }
    }
}
