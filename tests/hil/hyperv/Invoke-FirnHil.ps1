<#
.SYNOPSIS
Boots firn on this machine's Hyper-V, runs jobs, and checks what they left.

.DESCRIPTION
For each generation and scenario: makes a virtual machine of its own, with a
copy of the boot disk, a data disk and an image disk; starts it; keeps what it
says on COM1; reads its firn-result and firn-event lines; looks at the data disk
itself; and removes machine and disks again, whatever happened.

README.md says how the boot disks are made and what has been run so far.

.EXAMPLE
.\Invoke-FirnHil.ps1 -VerifyDisk verify.vhdx -FreezeDisk freeze.vhdx
#>
#Requires -Version 5.1
#Requires -Modules Hyper-V
#Requires -RunAsAdministrator
[CmdletBinding()]
param(
    # The boot disk whose jobs are those of the scenario "verify".
    [string]$VerifyDisk,
    # The boot disk whose jobs are those of the scenario "freeze".
    [string]$FreezeDisk,
    # Which generations of virtual machines.
    [ValidateSet(1, 2)]
    [int[]]$Generation = @(1, 2),
    # Where disks and consoles go.
    [string]$Folder = (Join-Path ([IO.Path]::GetTempPath()) 'firn-hil'),
    # How long one boot may take, in seconds.
    [ValidateRange(10, 3600)]
    [int]$Timeout = 300,
    # Leave the disks in the folder; consoles are always left.
    [switch]$Keep
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

Add-Type -Path (Join-Path $PSScriptRoot 'VerifyFormat.cs')

# What the jobs of the boot disk `verify` write (README.md), and what they need.
$Verify = @{
    Name     = 'verify'
    Disk     = $VerifyDisk
    Boots    = 1
    Memory   = 256MB
    Data     = 256MB
    Image    = 64MB
    Bytes    = 64MB
    Seed     = 1
    Generation = 1
    Block    = 64KB
}
# The jobs of `freeze` fill 256 MiB, freeze, and go on in a second boot.
$Freeze = @{
    Name     = 'freeze'
    Disk     = $FreezeDisk
    Boots    = 2
    Memory   = 368MB
    Data     = 64MB
    Image    = 320MB
}

# A virtual machine with the boot disk, and on the SCSI controller a data disk
# (sda) and an image disk (sdb). In generation 2 the boot disk must be on that
# controller, too: behind them, so that their names stay the same.
function New-FirnVM {
    param([string]$Name, [int]$Generation, [hashtable]$Scenario, [string]$Place)

    $boot = Join-Path $Place 'boot.vhdx'
    Copy-Item -Path $Scenario.Disk -Destination $boot
    $data = Join-Path $Place 'data.vhdx'
    $image = Join-Path $Place 'image.vhdx'
    New-VHD -Path $data -SizeBytes $Scenario.Data -Fixed | Out-Null
    New-VHD -Path $image -SizeBytes $Scenario.Image -Fixed | Out-Null

    New-VM -Name $Name -Generation $Generation -MemoryStartupBytes $Scenario.Memory `
        -NoVHD -Path $Place | Out-Null
    Set-VM -Name $Name -StaticMemory -ProcessorCount 1 -CheckpointType Disabled `
        -AutomaticStartAction Nothing -AutomaticStopAction TurnOff
    Get-VMNetworkAdapter -VMName $Name | Remove-VMNetworkAdapter
    if (-not (Get-VMScsiController -VMName $Name)) {
        Add-VMScsiController -VMName $Name
    }
    Add-VMHardDiskDrive -VMName $Name -ControllerType SCSI -ControllerNumber 0 `
        -ControllerLocation 0 -Path $data
    Add-VMHardDiskDrive -VMName $Name -ControllerType SCSI -ControllerNumber 0 `
        -ControllerLocation 1 -Path $image
    if ($Generation -eq 1) {
        Add-VMHardDiskDrive -VMName $Name -ControllerType IDE -ControllerNumber 0 `
            -ControllerLocation 0 -Path $boot
        Set-VMBios -VMName $Name -StartupOrder @('IDE', 'CD', 'LegacyNetworkAdapter', 'Floppy')
    }
    else {
        $drive = Add-VMHardDiskDrive -VMName $Name -ControllerType SCSI -ControllerNumber 0 `
            -ControllerLocation 2 -Path $boot -Passthru
        Set-VMFirmware -VMName $Name -EnableSecureBoot Off -FirstBootDevice $drive
    }
    Set-VMComPort -VMName $Name -Number 1 -Path "\\.\pipe\$Name"
    return $data
}

function Test-Off {
    param([string]$Name)
    return (Get-VM -Name $Name).State -eq 'Off'
}

# Starts the machine and returns all that it says on COM1 until it is off.
function Invoke-Boot {
    param([string]$Name, [string]$Log, [int]$Timeout)

    $deadline = [DateTime]::UtcNow.AddSeconds($Timeout)
    Start-VM -Name $Name
    $pipe = New-Object IO.Pipes.NamedPipeClientStream('.', $Name,
        [IO.Pipes.PipeDirection]::InOut, [IO.Pipes.PipeOptions]::Asynchronous)
    $text = New-Object Text.StringBuilder
    try {
        # Hyper-V makes the pipe when the machine starts; its firmware takes
        # longer than we do, so nothing of the guest is missed.
        $pipe.Connect(60000)
        $buffer = New-Object byte[] 4096
        $reading = $null
        while ($true) {
            if ([DateTime]::UtcNow -gt $deadline) {
                throw "$Name was not off after $Timeout s; its console is in $Log"
            }
            if ($null -eq $reading) {
                $reading = $pipe.ReadAsync($buffer, 0, $buffer.Length)
            }
            try {
                if (-not $reading.Wait(500)) {
                    if (Test-Off -Name $Name) { break }
                    continue
                }
                $count = $reading.Result
            }
            catch [AggregateException] {
                # The other end is gone: so is the machine, or soon will be.
                $count = 0
            }
            if ($count -eq 0) { break }
            [void]$text.Append([Text.Encoding]::UTF8.GetString($buffer, 0, $count))
            $reading = $null
            if ($text.ToString().Contains('firn: halted')) {
                throw "$Name could not switch itself off; its console is in $Log"
            }
        }
        while (-not (Test-Off -Name $Name)) {
            if ([DateTime]::UtcNow -gt $deadline) {
                throw "$Name closed COM1 and was not off after $Timeout s"
            }
            Start-Sleep -Milliseconds 200
        }
    }
    finally {
        $pipe.Dispose()
        [IO.File]::AppendAllText($Log, $text.ToString())
    }
    return $text.ToString()
}

# The lines for programs: objects of all lines that begin with this word.
function Get-FirnLine {
    param([string]$Console, [string]$Word)
    foreach ($line in $Console -split "`r?`n") {
        $at = $line.IndexOf("$Word {")
        if ($at -ge 0) {
            $line.Substring($at + $Word.Length + 1) | ConvertFrom-Json
        }
    }
}

function Assert-That {
    param([bool]$Condition, [string]$Message)
    if (-not $Condition) { throw $Message }
}

# Every job that was begun ended well, and these are among them.
function Assert-Result {
    param([string]$Console, [string[]]$Jobs)
    $results = @(Get-FirnLine -Console $Console -Word 'firn-result')
    foreach ($result in $results) {
        if (-not $result.ok) {
            throw "$($result.job) failed: $($result | ConvertTo-Json -Compress)"
        }
    }
    foreach ($job in $Jobs) {
        $of = @($results | Where-Object { $_.job -eq $job })
        Assert-That -Condition ($of.Count -gt 0) -Message "no result of the job $job"
    }
}

function Get-FirnEvent {
    param([string]$Console, [string]$Name)
    $all = @(Get-FirnLine -Console $Console -Word 'firn-event' |
            Where-Object { $_.event -eq $Name })
    Assert-That -Condition ($all.Count -eq 1) -Message "$($all.Count) events '$Name' instead of 1"
    return $all[0]
}

# Reads the disk through Windows, without the guest.
function Assert-VerifyDisk {
    param([string]$Path, [hashtable]$Scenario)
    $number = (Mount-VHD -Path $Path -ReadOnly -NoDriveLetter -Passthru | Get-Disk).Number
    try {
        $disk = New-Object IO.FileStream("\\.\PhysicalDrive$number", [IO.FileMode]::Open,
            [IO.FileAccess]::Read, [IO.FileShare]::ReadWrite)
        try {
            $wrong = [Firn.VerifyFormat]::Check($disk, $Scenario.Bytes, $Scenario.Seed,
                $Scenario.Generation, $Scenario.Block)
        }
        finally { $disk.Dispose() }
    }
    finally { Dismount-VHD -Path $Path }
    Assert-That -Condition ($null -eq $wrong) -Message "host: ${Path}: $wrong"
    Write-Host "host: ${Path}: all $($Scenario.Bytes) bytes from 0 on are what seed $($Scenario.Seed) must have left"
}

function Assert-Scenario {
    param([hashtable]$Scenario, [string[]]$Consoles, [string]$Data)
    if ($Scenario.Name -eq 'verify') {
        Assert-Result -Console $Consoles[0] -Jobs @('disks', 'verify', 'poweroff')
        Assert-VerifyDisk -Path $Data -Scenario $Scenario
        return
    }
    Assert-Result -Console $Consoles[0] -Jobs @('fill')
    $frozen = Get-FirnEvent -Console $Consoles[0] -Name 'frozen'
    $restored = Get-FirnEvent -Console $Consoles[1] -Name 'restored'
    [void](Get-FirnEvent -Console $Consoles[1] -Name 'consumed')
    Assert-That -Condition ($frozen.generation -eq $restored.generation) -Message 'another image was restored'
    Assert-That -Condition ($frozen.memory_hash -eq $restored.memory_hash) `
        -Message "memory: $($frozen.memory_hash) before, $($restored.memory_hash) after"
    Assert-Result -Console $Consoles[1] -Jobs @('fill-check', 'ledger', 'poweroff')
    Write-Host "host: memory: equal before and after, hash $($frozen.memory_hash)"
}

# Removes the machine and, unless they are to be kept, its disks.
function Remove-FirnVM {
    param([string]$Name, [string]$Place, [bool]$Keep)
    $vm = Get-VM -Name $Name -ErrorAction SilentlyContinue
    if ($vm) {
        if ($vm.State -ne 'Off') { Stop-VM -VM $vm -TurnOff -Force }
        Remove-VM -VM $vm -Force
    }
    foreach ($file in Get-ChildItem -Path $Place -Filter '*.vhdx') {
        if ((Get-VHD -Path $file.FullName).Attached) { Dismount-VHD -Path $file.FullName }
        if (-not $Keep) { Remove-Item -Path $file.FullName -Force }
    }
}

function Invoke-Scenario {
    param([int]$Generation, [hashtable]$Scenario)
    $name = "firn-hil-gen$Generation-$($Scenario.Name)-$PID"
    $place = Join-Path $Folder $name
    New-Item -ItemType Directory -Path $place -Force | Out-Null
    try {
        $data = New-FirnVM -Name $name -Generation $Generation -Scenario $Scenario -Place $place
        $consoles = @()
        for ($boot = 1; $boot -le $Scenario.Boots; $boot++) {
            $log = Join-Path $place "console-$boot.log"
            $consoles += Invoke-Boot -Name $name -Log $log -Timeout $Timeout
        }
        Assert-Scenario -Scenario $Scenario -Consoles $consoles -Data $data
    }
    catch {
        # What it said last is what a person wants to see.
        Get-ChildItem -Path $place -Filter 'console-*.log' |
            ForEach-Object { Get-Content -Path $_.FullName -Tail 40 } | Out-Host
        throw
    }
    finally {
        Remove-FirnVM -Name $name -Place $place -Keep $Keep.IsPresent
    }
}

$passed = 0
$failed = 0
$skipped = 0
foreach ($one in $Generation) {
    foreach ($scenario in @($Verify, $Freeze)) {
        $title = "generation $one, $($scenario.Name)"
        if (-not $scenario.Disk) {
            Write-Host "SKIP $($title): no boot disk was given for it"
            $skipped++
            continue
        }
        try {
            Invoke-Scenario -Generation $one -Scenario $scenario
            Write-Host "ok   $title"
            $passed++
        }
        catch {
            Write-Host "FAIL $($title): $_"
            $failed++
        }
    }
}
Write-Host "$passed passed, $failed failed, $skipped skipped"
if ($failed -gt 0 -or $passed -eq 0) { exit 1 }
