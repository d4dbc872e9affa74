<#
.SYNOPSIS
Is this VM in maintenance, or about to be? Tells the Application event log, once for each event.

.DESCRIPTION
Asks Azure's metadata service of 2015, which answers {} when there is nothing to tell, and else an
EventID and an EventCreationTime (US date, UTC), from five minutes before. To ask every minute:

  schtasks /Create /SC MINUTE /RU SYSTEM /TN Is-VMInMaintenance ^
    /TR "powershell.exe -NoProfile -ExecutionPolicy Bypass -File C:\Tools\Is-VMInMaintenance.ps1"

Exit codes: 0 yes, 1 no, 2 it cannot be told.
#>
$ErrorActionPreference = 'Stop'
# What the event log has been told.
$told = Join-Path $env:ProgramData 'Is-VMInMaintenance.told'

try {
    $request = [System.Net.WebRequest]::Create('http://169.254.169.254/metadata/v1/maintenance')
    $request.Proxy = $null
    $request.Timeout = 5000
    $response = $request.GetResponse()
    try {
        $reader = New-Object System.IO.StreamReader($response.GetResponseStream())
        $answer = $reader.ReadToEnd() | ConvertFrom-Json
    } finally {
        $response.Close()
    }
} catch {
    [Console]::Error.WriteLine("the metadata service does not answer: $($_.Exception.Message)")
    exit 2
}

# Of an object without the member this is $null: {} is not an event.
$event_id = $answer.EventID
if ([string]::IsNullOrEmpty($event_id)) {
    exit 1
}

if (-not ((Test-Path -LiteralPath $told) -and ((Get-Content -LiteralPath $told) -contains $event_id))) {
    $us = [System.Globalization.CultureInfo]::GetCultureInfo('en-US')
    $created = [DateTime]::Parse($answer.EventCreationTime, $us).ToString('u')
    $text = "Maintenance of this VM is imminent: event $event_id, created $created"
    eventcreate.exe /L APPLICATION /T WARNING /ID 1 /SO Is-VMInMaintenance /D $text | Out-Null
    if ($LASTEXITCODE -ne 0) {
        [Console]::Error.WriteLine('the event log could not be told; is this an administrator?')
        exit 2
    }
    Add-Content -LiteralPath $told -Value $event_id
}
exit 0
